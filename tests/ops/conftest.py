"""What the tests of all ops share: every test runs on each backend, and errors are measured against float64.

Where there is a GPU, and in the emulator if ELECTRA_TEST_EMULATED is set, the native backend is tested with its CUDA
kernels as well, by the same tests with the same tensors on the CPU: for their time the CUDA kernels stand in for those
of the CPU (arguments and results are copied there and back). float16 then takes the place of float64; a test of a dtype
that an op does not take on CUDA is skipped, with the reason.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from electra_fast import ops
from electra_fast.ops import native

_path = Path(__file__).parents[1] / "cuda" / "emulation" / "emulator.py"
_spec = importlib.util.spec_from_file_location("electra_emulator_of_ops", _path)
places = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(places)

CUDA_PLACES = [
    *(["cuda"] if places.why_no_gpu() is None else []),
    *(["emulated"] if os.environ.get("ELECTRA_TEST_EMULATED") else []),
]


def require_native() -> None:
    if native.error is not None:
        pytest.skip(native.error)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "reads_values: expects an error about values, at which CUDA ops do not look")
    config.addinivalue_line("markers", "too_long_to_emulate: runs on a GPU, but not in its emulator")


def _place(node: pytest.Function) -> str | None:
    """Which CUDA place a test runs in, if any."""
    params = node.callspec.params if hasattr(node, "callspec") else {}
    return next((p for p in (params.get("backend"), params.get("native_place")) if p in CUDA_PLACES), None)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    try:
        return (yield)
    except Exception as error:
        if _place(pyfuncitem) and (told := re.search(r".* on CUDA takes? .*|.* must be .*float16 on CUDA", str(error))):
            pytest.skip(told[0])
        raise


@pytest.fixture(scope="session")
def _emulator() -> places.Emulator:
    if (reason := places.build.why_not()) is not None:
        pytest.skip(reason)
    return places.Emulator()


@pytest.fixture
def _cuda_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CUDA kernels of the module's op in place of the CPU's, with the CUDA rules for dtypes; nothing elsewhere."""
    place, op = _place(request.node), request.module.OP
    if place is None:
        yield
        return
    if request.node.get_closest_marker("reads_values"):
        pytest.skip("CUDA ops do not wait for values to be checked")
    if place == "emulated" and request.node.get_closest_marker("too_long_to_emulate"):
        pytest.skip("takes too long in the emulator")
    require_native()
    gpu = places.Gpu() if place == "cuda" else request.getfixturevalue("_emulator")
    elsewhere = gpu.load(op) if gpu.real else places.Elsewhere(gpu.load(op), places.to_guarded)
    forward = native.FUNCTIONS[op]
    with torch.library._scoped_library("electra_fast", "IMPL") as library:
        for function in (forward, f"{op}_backward"):
            if hasattr(torch.ops.electra_fast, function):
                library.impl(function, getattr(elsewhere, function), "CPU", allow_override=True)
        for table in (native._DTYPES, native._ADAM_DTYPES):
            for key, dtypes in list(table.items()):
                if key == "cuda" or key[0] == "cuda":
                    monkeypatch.setitem(table, "cpu" if key == "cuda" else ("cpu", key[1]), dtypes)
        monkeypatch.setitem(native._NAMES, "cpu", "CUDA")
        gpu.guard(True)
        yield
        gpu.guard(False)


@pytest.fixture(params=["reference", "native", *CUDA_PLACES])
def backend(request: pytest.FixtureRequest, _cuda_kernels: None) -> Iterator[str]:
    """Each backend in turn, forced for the module's op (its ``OP``); native is skipped only where it is not built."""
    name = "native" if request.param in CUDA_PLACES else request.param
    if name == "native":
        require_native()
    with ops.use_backend(name, ops=[request.module.OP]):
        yield name


@pytest.fixture(params=["native", *CUDA_PLACES] if CUDA_PLACES else None)
def native_place(_cuda_kernels: None) -> None:
    """Where the kernels of ``native_op`` and ``native_backward`` run."""
    require_native()


@pytest.fixture
def native_op(request: pytest.FixtureRequest, native_place: None) -> Callable:
    """The module's op as the native library registers it (name in ``OP``)."""
    return getattr(torch.ops.electra_fast, native.FUNCTIONS[request.module.OP]).default


@pytest.fixture
def native_backward(request: pytest.FixtureRequest, native_place: None) -> Callable:
    """The backward of the module's op as the native library registers it."""
    return getattr(torch.ops.electra_fast, f"{request.module.OP}_backward").default


@pytest.fixture
def native_dtype(request: pytest.FixtureRequest, native_place: None) -> torch.dtype:
    """float32; bfloat16 where the CUDA kernels of the op take no float32."""
    taken = native._DTYPES.get(("cpu", request.module.OP), native._DTYPES["cpu"])
    return torch.float32 if torch.float32 in taken else torch.bfloat16


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float64], ids=["float32", "bfloat16", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    in_cuda = _place(request.node) is not None
    return torch.float16 if in_cuda and request.param == torch.float64 else request.param


def _assert_accurate(name: str, actual: Tensor, truth: Tensor, plain: Tensor, factor: float = 2.0) -> None:
    """The error against float64 is at most ``factor`` times plain PyTorch's in the same dtype, plus one rounding (four
    in float32 and float64, where plain PyTorch may be right to the last bit by luck)."""
    assert truth.dtype == torch.float64, name
    assert actual.shape == truth.shape, f"{name}: shape {actual.shape}, expected {truth.shape}"
    if truth.numel() == 0:
        return
    assert torch.isfinite(actual).all(), f"{name} is not finite"
    error = (actual.double() - truth).abs().max().item()
    plain_error = (plain.double() - truth).abs().max().item()
    if plain.dtype == torch.float64:  # the truth itself: only the order of summation differs
        plain_error = 1e-11 * truth.abs().max().item()
    roundings = 1 if plain.dtype in (torch.bfloat16, torch.float16) else 4
    rounding = torch.finfo(plain.dtype).eps * max(truth.abs().max().item(), 1e-3)
    allowed = factor * plain_error + roundings * rounding
    assert error <= allowed, f"{name}: error {error:.3g}, plain PyTorch has {plain_error:.3g}, allowed {allowed:.3g}"


@pytest.fixture
def assert_accurate() -> Callable:
    return _assert_accurate


def _gradients(function: Callable, inputs: dict[str, Tensor], seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """``function(**inputs)`` and the gradient of its product with fixed random numbers, for each floating input."""
    leaves = {
        name: x.detach().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x
        for name, x in inputs.items()
    }
    out = function(**leaves)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    wanted = {name: x for name, x in leaves.items() if isinstance(x, Tensor) and x.requires_grad}
    grads = torch.autograd.grad(out, list(wanted.values()), grad)
    for (name, x), g in zip(wanted.items(), grads, strict=True):
        assert g.dtype == x.dtype, f"gradient of {name} is {g.dtype}, the input {x.dtype}"
    return out.detach(), dict(zip(wanted, grads, strict=True))


@pytest.fixture
def gradients() -> Callable:
    return _gradients


def _as_double(inputs: dict) -> dict:
    return {k: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for k, x in inputs.items()}


@pytest.fixture
def as_double() -> Callable:
    return _as_double


def _assert_matches_plain(ours: Callable, plain: Callable, inputs: dict[str, Tensor]) -> None:
    """Output within 2 × and gradients within 3 × the error of plain PyTorch in the inputs' dtypes."""
    truth, truth_grads = _gradients(plain, _as_double(inputs))
    base, base_grads = _gradients(plain, inputs)
    out, grads = _gradients(ours, inputs)
    assert out.dtype == base.dtype
    _assert_accurate("output", out, truth, base)
    for name, grad in grads.items():
        _assert_accurate(f"gradient of {name}", grad, truth_grads[name], base_grads[name], factor=3.0)


@pytest.fixture
def assert_matches_plain() -> Callable:
    return _assert_matches_plain


def _tensors(result) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _assert_deterministic(function: Callable, runs: int = 20) -> None:
    """Bit-equal from run to run, and for one thread and two."""
    expected = [x.clone() for x in _tensors(function())]
    threads = torch.get_num_threads()
    try:
        for run in range(runs):
            torch.set_num_threads(1 + run % 2)
            for a, b in zip(_tensors(function()), expected, strict=True):
                assert torch.equal(a, b), f"run {run} differs"
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def assert_deterministic() -> Callable:
    return _assert_deterministic


def _assert_compiles(function: Callable, inputs: dict[str, Tensor], compiler: str = "aot_eager") -> None:
    """Traced without a graph break, outputs and gradients equal those of eager."""
    torch._dynamo.reset()
    expected, expected_grads = _gradients(function, inputs)
    out, grads = _gradients(torch.compile(function, fullgraph=True, backend=compiler), inputs)
    torch.testing.assert_close(out, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], msg=lambda m, name=name: f"gradient of {name}: {m}")


@pytest.fixture
def assert_compiles() -> Callable:
    return _assert_compiles
