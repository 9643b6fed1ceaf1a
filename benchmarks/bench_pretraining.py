"""The suite pretraining under pytest-benchmark (conftest.py says how)."""

SUITE = "pretraining"


def test_pretraining(timed):
    timed()
