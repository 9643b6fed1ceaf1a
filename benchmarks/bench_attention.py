"""The suite attention under pytest-benchmark (conftest.py says how)."""

SUITE = "attention"


def test_attention(timed):
    timed()
