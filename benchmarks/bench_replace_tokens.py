"""The suite replace_tokens under pytest-benchmark (conftest.py says how)."""

SUITE = "replace_tokens"


def test_replace_tokens(timed):
    timed()
