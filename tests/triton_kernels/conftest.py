"""Triton kernels against the reference: on a GPU where there is one, else in Triton's interpreter on CPU tensors.

The interpreter is chosen when Triton is first imported, for the whole process, and torch.compile would then use it as
well: so these tests are run by a command of their own, ``TRITON_INTERPRET=1 pytest tests/triton_kernels`` (`make test`
does). Without it and without a GPU they are skipped.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def _why_not() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not INTERPRETED and not torch.cuda.is_available():
        return "no GPU, and Triton's interpreter was not asked for: TRITON_INTERPRET=1 pytest tests/triton_kernels"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a kernel to run; tests marked ``compiles_only`` need neither a GPU nor the interpreter."""
    if (reason := _why_not()) is None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("compiles_only"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _accept_arrays_of_one_element() -> None:
    """Let loops run to a loaded bound in the interpreter of Triton 3.6, which makes an int of an array of one element:
    numpy 2.4 no longer does."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_index(tensor: type, scope: object) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_and_index


if INTERPRETED and _why_not() is None:
    import triton

    if triton.__version__.startswith("3.6."):
        _accept_arrays_of_one_element()


@pytest.fixture
def device() -> str:
    """Where the tensors of a test live: "cpu" in the interpreter, else "cuda"."""
    return DEVICE


@pytest.fixture(params=[torch.float32, torch.float16], ids=["float32", "float16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Dtypes in which the interpreter is right (it truncates to bfloat16, and its bfloat16 products are garbage)."""
    return request.param


@pytest.fixture
def triton_backend() -> Iterator[None]:
    """Every op of ``electra_fast.ops`` runs its Triton kernels."""
    from electra_fast import ops

    with ops.use_backend("triton"):
        yield


def _assert_accurate(name: str, actual: Tensor, truth: Tensor, plain: Tensor, factor: float = 2.0) -> None:
    """The error against float64 is at most ``factor`` times that of the reference in the same dtype, plus one rounding
    of the largest value (four in float32, where the reference may be right to the last bit by luck)."""
    assert actual.dtype == plain.dtype, f"{name} is {actual.dtype}, expected {plain.dtype}"
    assert actual.shape == truth.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(truth.shape)}"
    if truth.numel() == 0:
        return
    assert torch.isfinite(actual).all(), f"{name} is not finite"
    actual, truth, dtype = actual.double().cpu(), truth.double().cpu(), plain.dtype
    error = (actual - truth).abs().max().item()
    plain_error = (plain.double().cpu() - truth).abs().max().item()
    rounding = torch.finfo(dtype).eps * max(truth.abs().max().item(), 1e-3)
    allowed = factor * plain_error + (4 if dtype == torch.float32 else 1) * rounding
    assert error <= allowed, f"{name}: error {error:.3g}, the reference has {plain_error:.3g}, allowed {allowed:.3g}"


@pytest.fixture
def assert_accurate() -> Callable:
    return _assert_accurate


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _double(value: object) -> object:
    return value.double() if _is_float(value) else value


def _results(function: Callable, arguments: dict, seed: int) -> dict[str, Tensor]:
    """The first output of ``function`` and the gradients of its floating arguments, by name."""
    leaves = {
        name: value.detach().clone().requires_grad_()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }
    out = function(**leaves)
    out = out if isinstance(out, Tensor) else out[0]
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype).to(out.device)
    wanted = {name: x for name, x in leaves.items() if isinstance(x, Tensor) and x.requires_grad}
    grads = torch.autograd.grad(out, list(wanted.values()), grad)
    return {"output": out.detach(), **{f"gradient of {n}": g for n, g in zip(wanted, grads, strict=True)}}


def _assert_matches_reference(function: Callable, arguments: dict, seed: int = 1) -> None:
    """A public op with its backend forced to triton against the same op in the reference: the first output within 2 ×
    and the gradients within 3 × the reference's own error against float64.

    function: takes the arguments by name; arguments: tensors on the test's device and plain values.
    """
    from electra_fast import ops

    with ops.use_backend("reference"):
        truth = _results(function, {name: _double(value) for name, value in arguments.items()}, seed)
        plain = _results(function, arguments, seed)
    with ops.use_backend("triton"):
        actual = _results(function, arguments, seed)
    for name, expected in truth.items():
        _assert_accurate(name, actual[name], expected, plain[name], factor=2.0 if name == "output" else 3.0)


@pytest.fixture
def assert_matches_reference() -> Callable:
    return _assert_matches_reference
