"""CUDA kernels without a GPU: g++ compiles them for the emulator (tests/cuda/emulation); they run on CPU tensors."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location(
    "electra_emulation_build", Path(__file__).parent / "emulation" / "build.py"
)
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SCHEDULES = {"forward": 0, "reverse": 1, "random": 2}


class Emulator:
    """The emulated GPU. While it is in charge, every CPU tensor that torch makes is memory of that GPU: fresh memory is
    poisoned (NaN), and a kernel that leaves its tensors fails. Tensors made before are out of bounds."""

    def __init__(self) -> None:
        runtime = build.build_runtime()
        torch.ops.load_library(runtime)
        self._library = ctypes.CDLL(str(runtime))
        self._library.electra_emulation_configure.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]

    def load(self, *names: str):
        """Build and load the emulated ops; their namespace, where ``X`` and ``X_backward`` take CPU tensors."""
        for op in names:
            torch.ops.load_library(build.build_op(op))
        return torch.ops.electra_fast_emulated

    def load_kernels(self, name: str, sources: Sequence[Path]) -> ctypes.CDLL:
        """Build and load kernel files that are no op; what they export as ``extern "C"``."""
        return ctypes.CDLL(str(build.build(name, sources)))

    def guard(self, on: bool) -> None:
        self._library.electra_emulation_guard_tensors(int(on))

    def take_error(self) -> str:
        take = self._library.electra_emulation_take_error
        take.restype = ctypes.c_char_p
        return take().decode()

    @contextlib.contextmanager
    def configured(
        self, schedule: str = "forward", seed: int = 1, compute_capability: int = 90, multiprocessors: int = 4
    ) -> Iterator[None]:
        """The order in which threads and blocks run (forward, reverse, random), and the device that launchers see."""
        self._library.electra_emulation_configure(SCHEDULES[schedule], seed, compute_capability, multiprocessors)
        try:
            yield
        finally:
            self._library.electra_emulation_configure(SCHEDULES["forward"], 1, 90, 4)

    def same_under_every_schedule(self, function: Callable[[], Sequence[torch.Tensor]], random_runs: int = 1) -> None:
        """Bit-equal results whichever thread and block runs first: a missing barrier, or a sum in the order of arrival,
        shows as a difference."""
        expected = [x.clone() for x in function()]
        runs = [("reverse", 1), *(("random", seed) for seed in range(1, random_runs + 1))]
        for schedule, seed in runs:
            with self.configured(schedule, seed):
                for i, (actual, wanted) in enumerate(zip(function(), expected, strict=True)):
                    same = torch.equal(actual.contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8))
                    assert same, f"result {i} differs under the {schedule} schedule (seed {seed})"


@pytest.fixture(scope="session")
def _emulator() -> Emulator:
    if (reason := build.why_not()) is not None:
        pytest.skip(reason)
    return Emulator()


@pytest.fixture(scope="module")
def emulator(_emulator: Emulator) -> Iterator[Emulator]:
    """The emulator, in charge of torch's CPU tensors until the module's tests are done."""
    _emulator.guard(True)
    yield _emulator
    _emulator.guard(False)
