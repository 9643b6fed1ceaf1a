"""The suite gelu under pytest-benchmark (conftest.py says how)."""

SUITE = "gelu"


def test_gelu(timed):
    timed()
