"""Two places where CUDA kernels run for tests, with one face: the emulator on CPU tensors, and a GPU.

Tests keep all their tensors on the CPU. What they call as ``ops.X(...)`` runs the kernel in the place; for a GPU
arguments and results are copied there and back.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

_spec = importlib.util.spec_from_file_location("electra_emulation_build", Path(__file__).parent / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SCHEDULES = {"forward": 0, "reverse": 1, "random": 2}


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit, NaN and the sign of zero included."""
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


class Emulator:
    """The emulated GPU. While it is in charge, every CPU tensor that torch makes is memory of that GPU: fresh memory is
    poisoned (NaN), and a kernel that leaves its tensors fails. Tensors made before are out of bounds."""

    real = False

    def __init__(self) -> None:
        runtime = build.build_runtime()
        torch.ops.load_library(runtime)
        self._library = ctypes.CDLL(str(runtime))
        self._library.electra_emulation_configure.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
        self._library.electra_emulation_take_error.restype = ctypes.c_char_p

    def load(self, *names: str):
        """Build and load the emulated ops; their namespace, where ``X`` and ``X_backward`` take CPU tensors."""
        for op in names:
            torch.ops.load_library(build.build_op(op))
        return torch.ops.electra_fast_emulated

    def load_kernels(self, name: str, source: Path) -> ctypes.CDLL:
        """Build and load a kernel file that is no op; what it exports as ``extern "C"``."""
        return ctypes.CDLL(str(build.build(name, [source])))

    def guard(self, on: bool) -> None:
        self._library.electra_emulation_guard_tensors(int(on))

    def take_error(self) -> str:
        return self._library.electra_emulation_take_error().decode()

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

    def same_under_every_schedule(
        self, function: Callable[[], Sequence[Tensor]], random_runs: int = 1, compute_capability: int = 90
    ) -> None:
        """Bit-equal results whichever thread and block runs first: a missing barrier, or a sum in the order of arrival,
        shows as a difference."""
        with self.configured(compute_capability=compute_capability):
            expected = [x.clone() for x in function()]
        runs = [("reverse", 1), *(("random", seed) for seed in range(1, random_runs + 1))]
        for schedule, seed in runs:
            with self.configured(schedule, seed, compute_capability):
                for i, (actual, wanted) in enumerate(zip(function(), expected, strict=True)):
                    assert same_bits(actual, wanted), f"result {i} differs under the {schedule} schedule (seed {seed})"


class Gpu:
    """A GPU with the face of the emulator: one schedule, its own, tried many times."""

    real = True

    def load(self, *names: str):
        return Elsewhere(torch.ops.electra_fast, to_gpu)

    def load_kernels(self, name: str, source: Path) -> ctypes.CDLL:
        library = build.FOLDER / f"lib{name}-gpu.so"
        build.FOLDER.mkdir(parents=True, exist_ok=True)
        major, minor = torch.cuda.get_device_capability()
        target = f"{major}{minor}a" if major >= 9 else f"{major}{minor}"
        command = ["nvcc", "-std=c++17", "-O3", "-shared", "-Xcompiler=-fPIC", f"-I{build.ROOT / 'csrc'}"]
        command += ["-gencode", f"arch=compute_{target},code=sm_{target}", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))

    def guard(self, on: bool) -> None:
        """A GPU guards nothing."""

    def take_error(self) -> str:
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            return str(error)
        return ""

    @contextlib.contextmanager
    def configured(self, **_: object) -> Iterator[None]:
        yield

    def same_under_every_schedule(
        self, function: Callable[[], Sequence[Tensor]], random_runs: int = 1, compute_capability: int = 90
    ) -> None:
        expected = [x.clone() for x in function()]
        for run in range(20):
            for i, (actual, wanted) in enumerate(zip(function(), expected, strict=True)):
                assert same_bits(actual, wanted), f"result {i} differs in run {run}"


def _copy_of_storage(x: Tensor, device: str) -> Tensor:
    """``x`` on another device, or in fresh memory, with the same strides and offset."""
    storage = x.untyped_storage()
    raw = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,)).to(device, copy=True)
    return torch.empty(0, dtype=x.dtype, device=device).set_(
        raw.untyped_storage(), x.storage_offset(), x.shape, x.stride()
    )


def to_gpu(x: Tensor) -> Tensor:
    return _copy_of_storage(x.detach(), "cuda")


def to_guarded(x: Tensor) -> Tensor:
    """In memory that the emulator knows, whenever ``x`` was made."""
    return _copy_of_storage(x.detach(), "cpu")


class Elsewhere:
    """A namespace of ops that take CPU tensors and compute where ``move`` puts them."""

    def __init__(self, namespace, move: Callable[[Tensor], Tensor]) -> None:
        self._namespace, self._move = namespace, move

    def __getattr__(self, name: str) -> Callable:
        overload = getattr(self._namespace, name).default
        written = [a.alias_info is not None and a.alias_info.is_write for a in overload._schema.arguments]

        def call(*args):
            moved = [_each(self._move, a) for a in args]
            results = overload(*moved)
            for original, result, changed in zip(args, moved, written, strict=False):
                if changed:
                    for a, b in zip(original, result, strict=True):
                        a.copy_(b)
            return _each(Tensor.cpu, results)

        return call


def _each(function: Callable[[Tensor], Tensor], value):
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(function, v) for v in value)
    return value


def why_no_gpu() -> str | None:
    """None if CUDA kernels can run on a GPU here, else the reason."""
    from electra_fast.ops import native

    if not torch.cuda.is_available():
        return "there is no GPU"
    return native.cuda_error
