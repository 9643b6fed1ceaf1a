"""The suite generator_head under pytest-benchmark (conftest.py says how)."""

SUITE = "generator_head"


def test_generator_head(timed):
    timed()
