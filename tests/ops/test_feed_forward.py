"""feed_forward: both products and the activation in one pass equal the three ops, in value, gradients and dtypes."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import nn as fast
from electra_fast import ops
from electra_fast.ops import native

if native.error is not None:
    pytest.skip(native.error, allow_module_level=True)

module = importlib.import_module("electra_fast.ops.feed_forward")
NAMES = ("output", "gradient of x", "gradient of w1", "gradient of b1", "gradient of w2")


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch) -> None:
    monkeypatch.setattr(module, "SMALLEST", 0)


@pytest.fixture
def calls(monkeypatch) -> list:
    """One entry for each call of the kernel."""
    seen, function = [], module._native
    monkeypatch.setattr(module, "_native", lambda *inputs: seen.append(inputs) or function(*inputs))
    return seen


def make(tokens: int, width: int, middle: int, out: int, dtype: torch.dtype, parameters: torch.dtype | None = None):
    g = torch.Generator().manual_seed(tokens + middle)

    def randn(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=g) * scale

    inputs = randn(tokens, width), randn(middle, width, scale=width**-0.5), randn(middle), randn(out, middle, scale=0.1)
    return [x.to(dtype if i == 0 else parameters or dtype) for i, x in enumerate(inputs)], randn(tokens, out).to(dtype)


def three_ops(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2)


def results(function, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


@pytest.mark.parametrize("tokens", [1, 2, 97, 301])
@pytest.mark.parametrize(("width", "middle", "out"), [(64, 256, 64), (33, 130, 65), (6, 7, 3), (128, 64, 320)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_native_matches_the_three_ops(tokens, width, middle, out, dtype, assert_accurate, calls) -> None:
    inputs, grad = make(tokens, width, middle, out, dtype)
    actual = results(ops.feed_forward, inputs, grad)
    assert len(calls) == 1
    plain = results(three_ops, inputs, grad)
    truth = results(three_ops, [x.double() for x in inputs], grad)
    for name, ours, exact, theirs in zip(NAMES, actual, truth, plain, strict=True):
        assert_accurate(name, ours, exact, theirs)


@pytest.mark.parametrize("size", [1e-4, 30.0])
def test_small_and_large_activations(size, assert_accurate) -> None:
    inputs, grad = make(40, 32, 70, 16, torch.float32)
    inputs[0] *= size
    actual, plain = results(ops.feed_forward, inputs, grad), results(three_ops, inputs, grad)
    truth = results(three_ops, [x.double() for x in inputs], grad)
    for name, ours, exact, theirs in zip(NAMES, actual, truth, plain, strict=True):
        assert_accurate(name, ours, exact, theirs)


def test_gradients_of_float32_parameters_are_not_rounded() -> None:
    """Under autocast: bfloat16 between layers, sums of float32 for the parameters."""
    inputs, grad = make(64, 32, 128, 32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = results(ops.feed_forward, inputs, grad), results(three_ops, inputs, grad)
    truth = results(three_ops, [x.double() for x in inputs], grad)
    assert ours[0].dtype == torch.bfloat16
    assert [x.dtype for x in ours[1:]] == [torch.float32] * 4
    for name, a, b, exact in zip(NAMES, ours, theirs, truth, strict=True):
        assert (a - exact).norm() <= 1.2 * (b - exact).norm() + 1e-6 * exact.norm(), name


def test_float32_parameters_beside_bfloat16() -> None:
    inputs, grad = make(50, 32, 96, 32, torch.bfloat16, torch.float32)
    ours = results(ops.feed_forward, inputs, grad)
    assert [x.dtype for x in ours] == [torch.bfloat16, torch.bfloat16, *[torch.float32] * 3]
    truth = results(three_ops, [x.double() for x in inputs], grad)
    for name, a, exact in zip(NAMES, ours, truth, strict=True):
        assert (a - exact).norm() <= 8e-3 * exact.norm(), name


def test_threads_change_nothing() -> None:
    inputs, grad = make(333, 64, 192, 64, torch.bfloat16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(ops.feed_forward, inputs, grad)
        torch.set_num_threads(3)
        for a, b in zip(alone, results(ops.feed_forward, inputs, grad), strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


def test_leading_dimensions_and_strides() -> None:
    inputs, _ = make(24, 32, 64, 16, torch.float32)
    x = inputs[0].view(2, 12, 32).transpose(0, 1)
    torch.testing.assert_close(ops.feed_forward(x, *inputs[1:]), three_ops(x, *inputs[1:]))
    assert ops.feed_forward(inputs[0][:0], *inputs[1:]).shape == (0, 16)


def test_only_what_is_asked_for_is_differentiated() -> None:
    inputs, grad = make(20, 16, 32, 16, torch.float32)
    inputs[2].requires_grad_()
    out = ops.feed_forward(*inputs)
    (bias,) = torch.autograd.grad(out, [inputs[2]], grad)
    torch.testing.assert_close(bias, results(three_ops, inputs, grad)[3])


def test_a_second_derivative_is_refused() -> None:
    inputs, grad = make(20, 16, 32, 16, torch.float32)
    x = inputs[0].requires_grad_()
    with pytest.raises(RuntimeError, match="feed_forward: native kernels have no second derivative"):
        torch.autograd.grad(ops.feed_forward(*inputs), x, grad, create_graph=True)


def test_where_it_does_not_run_the_three_ops_do(calls) -> None:
    inputs, grad = make(20, 16, 32, 16, torch.float32)
    double = [x.double() for x in inputs]
    torch.testing.assert_close(ops.feed_forward(*double), three_ops(*double))
    with ops.use_backend("reference"):
        forced = results(ops.feed_forward, inputs, grad)
    compiled = torch.compile(ops.feed_forward, backend="aot_eager", fullgraph=True)(*inputs)
    assert not calls
    for actual, expected in zip(forced, results(three_ops, inputs, grad), strict=True):
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(compiled, forced[0])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ops.feed_forward(inputs[0], inputs[3], *inputs[2:])


@pytest.mark.parametrize("part", ["intermediate", "output"])
def test_a_layer_with_hooks_runs_its_parts(part, calls) -> None:
    """What somebody hung onto a part sees what it would have seen."""
    layer, x = fast.FeedForward(_Sizes()), torch.randn(9, 32)
    plain = layer(x)
    assert len(calls) == 1
    seen = []
    getattr(layer, part).register_forward_hook(lambda *given: seen.append(given[-1]))
    torch.testing.assert_close(layer(x), plain)
    assert len(seen) == 1
    getattr(layer, part).dense.register_forward_hook(lambda module, given, out: out * 0)
    assert not torch.allclose(layer(x), plain)
    assert len(calls) == 1


class _Sizes:
    hidden_size, intermediate_size, layer_norm_eps, hidden_dropout_prob = 32, 80, 1e-12, 0.0
