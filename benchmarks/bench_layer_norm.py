"""The suite layer_norm under pytest-benchmark (conftest.py says how)."""

SUITE = "layer_norm"


def test_layer_norm(timed):
    timed()
