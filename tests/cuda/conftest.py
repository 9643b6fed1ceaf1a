"""Tests of CUDA kernels run in the emulator (tests/cuda/emulation: no GPU needed) and, where there is one, on a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("electra_emulator", Path(__file__).parent / "emulation" / "emulator.py")
places = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(places)


@pytest.fixture(scope="session")
def _emulator() -> places.Emulator:
    if (reason := places.build.why_not()) is not None:
        pytest.skip(reason)
    return places.Emulator()


@pytest.fixture(scope="module", params=["emulator", "gpu"] if places.why_no_gpu() is None else None)
def emulator(request: pytest.FixtureRequest) -> Iterator[places.Emulator | places.Gpu]:
    """The emulator, in charge of torch's CPU tensors until the module's tests are done; then a GPU, if there is one."""
    if getattr(request, "param", "emulator") == "gpu":
        yield places.Gpu()
        return
    emulator = request.getfixturevalue("_emulator")
    emulator.guard(True)
    yield emulator
    emulator.guard(False)
