"""Shared by all tests: one thread a worker when tests run side by side, and a fixed seed before each test."""

import os

import pytest
import torch

# Tests start processes in the repository's root: those must import what is installed, not the sources beside them.
os.environ["PYTHONSAFEPATH"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; two thread pools on them would only fight
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
