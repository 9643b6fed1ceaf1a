"""The suite adam under pytest-benchmark (conftest.py says how)."""

SUITE = "adam"


def test_adam(timed):
    timed()
