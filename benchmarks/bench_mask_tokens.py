"""The suite mask_tokens under pytest-benchmark (conftest.py says how)."""

SUITE = "mask_tokens"


def test_mask_tokens(timed):
    timed()
