"""The suite encoder under pytest-benchmark (conftest.py says how)."""

SUITE = "encoder"


def test_encoder(timed):
    timed()
