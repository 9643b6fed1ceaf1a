"""The CUDA kernels of layer_norm in the emulator, through their torch boundary, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import reference, rng
from electra_fast.reference.philox import dropout_mask, keep_scale

EPS = 1e-12
DROPOUT = (0.1, 5)  # p, site
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PARTS = ["", "bias", "residual", "bias+residual"]

# Rows that a warp holds (one, half a one, several at once; lengths known to the compiler or not) and rows of a block
# (no multiple of 16 bytes; longer than 1024). Rows end inside a warp's share, and several blocks have some.
SHAPES = [
    (70, 128),
    (83, 256),
    (26, 768),
    (17, 1024),
    (2, 3, 40),
    (5, 520),
    (3, 129),
    (9, 3),
    (5, 2056),
    (0, 16),
    (16,),
]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("layer_norm")


def make(shape: tuple[int, ...], dtype: torch.dtype, parts: str, parameters: torch.dtype | None = None) -> list:
    """x, x_bias, residual, weight, bias."""
    n, parameters = shape[-1], parameters or dtype
    x_bias = torch.randn(n).to(parameters) if "bias" in parts else None
    residual = torch.randn(shape).to(dtype) if "residual" in parts else None
    weight, bias = (1 + 0.1 * torch.randn(n)).to(parameters), torch.randn(n).to(parameters)
    return [torch.randn(shape).to(dtype), x_bias, residual, weight, bias]


def options(dropout: bool) -> tuple:
    return (DROPOUT[0], rng.make(11, 2**33 + 3), DROPOUT[1]) if dropout else (0.0, None, 0)


def backward(ops, grad: Tensor, inputs: list, outputs: tuple, rest: tuple) -> tuple:
    _, total, mean, rstd = outputs
    x, x_bias, _, weight, bias = inputs
    saved = x if total.numel() == 0 else total
    return ops.layer_norm_backward(grad, saved, mean, rstd, weight, bias, x_bias, *rest)


def assert_close(name: str, actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """One rounding to the result's dtype beside the arithmetic in float32; `scale`: of the values that cancel in it."""
    assert actual.dtype == dtype, name
    assert actual.shape == expected.shape, name
    error = {"rtol": 1.01 * torch.finfo(dtype).eps + 1e-5, "atol": 2e-5 * scale}
    torch.testing.assert_close(actual.double(), expected.double(), **error, msg=lambda m: f"{name}: {m}")


def check(ops, shape: tuple[int, ...], dtype: torch.dtype, parts: str, dropout: bool, parameters=None) -> None:
    inputs, rest = make(shape, dtype, parts, parameters), options(dropout)
    parameters = parameters or dtype
    outputs = ops.layer_norm(*inputs, EPS, *rest)
    wide = [None if t is None else t.double() for t in inputs]
    y, total, mean, rstd = reference.layer_norm(*wide, EPS, *rest)
    assert_close("y", outputs[0], y, dtype, 10)
    assert_close("sum", outputs[1], total, dtype)
    assert_close("mean", outputs[2], mean, torch.float32)
    assert_close("rstd", outputs[3], rstd, torch.float32)

    # Gradients at the saved sum, which is rounded: that of the CPU kernels as well.
    grad = torch.randn(shape).to(dtype)
    dx, dresidual, dx_bias, dweight, dbias = backward(ops, grad, inputs, outputs, rest)
    saved = (inputs[0] if outputs[1].numel() == 0 else outputs[1]).double().reshape(-1, shape[-1])
    dy, weight = grad.double().reshape(-1, shape[-1]), wide[3]
    xhat = (saved - outputs[2].double()[:, None]) * outputs[3].double()[:, None]
    g = dy * weight
    d = outputs[3].double()[:, None] * (g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True))
    steep = float(outputs[3].max()) if outputs[3].numel() else 1.0
    assert_close("dresidual", dresidual, d.reshape(shape), dtype, max(1.0, steep))
    assert_close("dweight", dweight, (dy * xhat).sum(0), parameters, 10)
    assert_close("dbias", dbias, dy.sum(0), parameters, 10)
    if dropout:
        mask = dropout_mask(d.shape[0], d.shape[1], *rest)
        d = torch.where(mask, d * keep_scale(rest[0]), 0.0)
        assert_close("dx", dx, d.reshape(shape), dtype, max(1.0, steep))
        assert torch.equal(dx == 0, ~mask.reshape(shape) | (dresidual == 0))
    else:
        assert dx.shape == (0,)
    if inputs[1] is None:
        assert dx_bias.shape == (0,)
    else:
        assert_close("dx_bias", dx_bias, d.sum(0), parameters, 10 * max(1.0, steep))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(ops, shape, dtype) -> None:
    check(ops, shape, dtype, "bias+residual", dropout=True)
    check(ops, shape, dtype, "", dropout=False)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("columns", [256, 37])
def test_parts(ops, columns, parts, dropout) -> None:
    check(ops, (9, columns), torch.bfloat16, parts, dropout)


@pytest.mark.parametrize("columns", [256, 37, 1032])
def test_float32_parameters(ops, columns) -> None:
    check(ops, (9, columns), torch.bfloat16, "bias+residual", True, torch.float32)


def test_gradients_are_those_of_the_reference(ops) -> None:
    """Against autograd, not against the formula written out again."""
    inputs, rest = make((19, 256), torch.float32, "bias+residual"), options(True)
    leaves = [t.clone().requires_grad_() for t in inputs]
    grad = torch.randn(19, 256)
    expected = torch.autograd.grad(reference.layer_norm(*leaves, EPS, *rest)[0], leaves, grad)
    dx, dresidual, *parameters = backward(ops, grad, inputs, ops.layer_norm(*inputs, EPS, *rest), rest)
    for actual, wanted in zip((dx, parameters[0], dresidual, *parameters[1:]), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape", [(200, 256), (61, 768), (150, 128), (7, 100)], ids=str)
def test_same_bits_in_any_order(ops, emulator, shape) -> None:
    """Many blocks in several groups, whichever comes last."""
    inputs, rest = make(shape, torch.bfloat16, "bias+residual"), options(True)
    grad = torch.randn(shape).bfloat16()

    def run() -> list[Tensor]:
        outputs = ops.layer_norm(*inputs, EPS, *rest)
        return [*outputs, *backward(ops, grad, inputs, outputs, rest)]

    emulator.same_under_every_schedule(run)


@pytest.mark.parametrize(("p", "seed", "site"), [(0.5, -7, 2**32 - 1), (0.9, 2**40, 1), (0.001, 1, 2)])
@pytest.mark.parametrize("columns", [128, 100, 1040])
def test_dropout_bits(ops, p, seed, site, columns) -> None:
    """The mask read from the gradient is the contract's, bit for bit; p below 1/512 keeps everything."""
    inputs, rest = make((6, columns), torch.float32, "residual"), (p, rng.make(seed, 2**33 + 6), site)
    outputs = ops.layer_norm(*inputs, EPS, *rest)
    dx, dresidual, *_ = backward(ops, torch.randn(6, columns), inputs, outputs, rest)
    mask = dropout_mask(6, columns, *rest)
    torch.testing.assert_close(dx, torch.where(mask, dresidual * keep_scale(p), 0.0))
    torch.testing.assert_close(outputs[1], inputs[2] + torch.where(mask, inputs[0] * keep_scale(p), 0.0))


@pytest.mark.parametrize("columns", [1, 256, 768, 777, 2048])
def test_statistics_far_from_zero(ops, columns) -> None:
    """A large common offset cancels neither the variance nor the mean away, and a row without variance is the bias."""
    x = torch.randn(4, columns) + 1000.0
    x[0] = 0.1
    weight, bias = torch.ones(columns), torch.full((columns,), 0.5)
    y, total, _, _ = ops.layer_norm(x, None, None, weight, bias, EPS, 0.0, None, 0)
    assert total.shape == (0,)
    torch.testing.assert_close(y[0], bias, rtol=0.0, atol=1e-6)
    expected = torch.nn.functional.layer_norm(x[1:].double(), (columns,), eps=EPS) + 0.5
    assert (y[1:] - expected).abs().max() < 2e-4


def test_any_strides_and_alignment(ops) -> None:
    """What is not dense is copied; rows and parameters that 16-byte accesses do not fit take the way of a block."""
    inputs, rest = make((6, 64), torch.bfloat16, "bias+residual"), options(True)
    grad = torch.randn(6, 64).bfloat16()
    outputs = ops.layer_norm(*inputs, EPS, *rest)
    expected = [*outputs, *backward(ops, grad, inputs, outputs, rest)]

    def shifted(t: Tensor) -> Tensor:
        return torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape)

    def transposed(t: Tensor) -> Tensor:
        return t.t().contiguous().t() if t.ndim == 2 else t.repeat_interleave(2)[::2]

    for change in (shifted, transposed):
        changed = [change(t) for t in inputs]
        outputs = ops.layer_norm(*changed, EPS, *rest)
        actual = [*outputs, *backward(ops, change(grad), changed, outputs, rest)]
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.ones(2, 8).double()}, "layer_norm: x must be float32, bfloat16 or float16 on CUDA"),
        ({0: torch.tensor(1.0)}, "layer_norm: x must have at least one dimension"),
        ({0: torch.ones(2, 0)}, r"layer_norm: x must have a last dimension of at least 1, got \[2, 0\]"),
        ({0: torch.ones(1, 8193)}, "layer_norm: x must have a last dimension of at most 8192 on CUDA, got 8193"),
        ({1: torch.ones(1, 8)}, r"layer_norm: x_bias must have shape \[8\], got \[1, 8\]"),
        ({2: torch.ones(3, 8)}, r"layer_norm: residual must have the shape of x, \[2, 8\], got \[3, 8\]"),
        ({2: torch.ones(2, 8).half()}, "layer_norm: residual must have the dtype of x"),
        ({3: torch.ones(7)}, r"layer_norm: weight must have shape \[8\], got \[7\]"),
        ({4: torch.ones(8).half()}, "layer_norm: bias must be float32 or of the dtype of the activations"),
        ({6: 1.0}, r"layer_norm: dropout_p must be in \[0, 1\), got 1"),
        ({6: 0.5}, "layer_norm: dropout_p > 0 needs rng"),
        ({6: 0.5, 7: torch.zeros(2)}, r"layer_norm: rng must be an int64 tensor \(seed, step\)"),
    ],
)
def test_errors(ops, change, message) -> None:
    arguments = [torch.ones(2, 8), None, None, torch.ones(8), torch.ones(8), EPS, 0.0, None, 0]
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(RuntimeError, match=message):
        ops.layer_norm(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.ones(3, 8)}, r"layer_norm_backward: grad must have the shape of sum, \[2, 8\], got \[3, 8\]"),
        ({2: torch.ones(3)}, r"mean and rstd must be those that layer_norm returned, float32 of shape \[2\]"),
        ({3: torch.ones(2).double()}, "mean and rstd must be those that layer_norm returned"),
        ({6: torch.ones(9)}, r"layer_norm_backward: x_bias must have shape \[8\], got \[9\]"),
    ],
)
def test_backward_errors(ops, change, message) -> None:
    arguments = [torch.ones(2, 8), torch.ones(2, 8), torch.ones(2), torch.ones(2), torch.ones(8), torch.ones(8)]
    arguments += [None, 0.0, None, 0]
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(RuntimeError, match=message):
        ops.layer_norm_backward(*arguments)
