"""The suite training_step under pytest-benchmark (conftest.py says how)."""

SUITE = "training_step"


def test_training_step(timed):
    timed()
