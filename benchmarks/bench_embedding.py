"""The suite embedding under pytest-benchmark (conftest.py says how)."""

SUITE = "embedding"


def test_embedding(timed):
    timed()
