"""Shared by all tests: one thread a worker when tests run side by side, and a fixed seed before each test."""

import os
import signal

import pytest
import torch

# Tests start processes in the repository's root: those must import what is installed, not the sources beside them.
os.environ["PYTHONSAFEPATH"] = "1"

# A shell's background job is started with Ctrl-C ignored, and hands that on to every process it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; two thread pools on them would only fight
    torch.set_num_threads(1)


def pytest_addoption(parser) -> None:
    parser.addoption("--kills", type=int, default=7, help="how often tests/workflows/test_faults.py kills its run")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
