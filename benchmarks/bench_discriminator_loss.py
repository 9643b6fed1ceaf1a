"""The suite discriminator_loss under pytest-benchmark (conftest.py says how)."""

SUITE = "discriminator_loss"


def test_discriminator_loss(timed):
    timed()
