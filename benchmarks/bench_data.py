"""The suite data under pytest-benchmark (conftest.py says how)."""

SUITE = "data"


def test_data(timed):
    timed()
