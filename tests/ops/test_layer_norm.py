"""layer_norm against torch's, with the optional parts written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.reference.philox import dropout_mask, keep_scale

OP = "layer_norm"
EPS = 1e-12
SHAPES = [(1, 5), (5, 40), (3, 256), (2, 3, 129), (7, 1000), (0, 16), (16,)]
PARTS = ["", "bias", "residual", "bias+residual"]
OPTIONS = {"dropout_p": 0.1, "rng": rng.make(11, 3), "site": 5}


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, parts: str = "bias+residual") -> dict[str, Tensor]:
    inputs = {"x": torch.randn(shape), "weight": 1 + 0.1 * torch.randn(shape[-1]), "bias": torch.randn(shape[-1])}
    if "bias" in parts:
        inputs["x_bias"] = torch.randn(shape[-1])
    if "residual" in parts:
        inputs["residual"] = torch.randn(shape)
    return {name: x.to(dtype) for name, x in inputs.items()}


def plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    x_bias: Tensor | None = None,
    residual: Tensor | None = None,
    keep: Tensor | None = None,
    p: float = 0.0,
) -> Tensor:
    s = x if x_bias is None else x + x_bias
    if keep is not None:
        s = s * keep * keep_scale(p)
    if residual is not None:
        s = s + residual
    return F.layer_norm(s, s.shape[-1:], weight.to(s.dtype), bias.to(s.dtype), EPS)


def mask_of(x: Tensor, options: dict) -> Tensor:
    rows, columns = x.numel() // x.shape[-1], x.shape[-1]
    return dropout_mask(rows, columns, options["dropout_p"], options["rng"], options["site"]).view(x.shape)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_torch(backend, dtype, shape, parts, assert_matches_plain) -> None:
    assert_matches_plain(ops.layer_norm, plain, make(shape, dtype, parts))


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("shape", [(5, 40), (3, 256), (2, 3, 129)])
def test_dropout_matches_torch(backend, dtype, shape, parts, assert_matches_plain) -> None:
    inputs = make(shape, dtype, parts)
    keep = mask_of(inputs["x"], OPTIONS)
    assert_matches_plain(
        lambda **given: ops.layer_norm(**given, **OPTIONS),
        lambda **given: plain(**given, keep=keep, p=OPTIONS["dropout_p"]),
        inputs,
    )


def test_float32_parameters_beside_bfloat16(backend, gradients) -> None:
    inputs = make((9, 64), torch.bfloat16)
    mixed = {n: x.float() if n in ("weight", "bias", "x_bias") else x for n, x in inputs.items()}
    out, grads = gradients(lambda **given: ops.layer_norm(**given, **OPTIONS), inputs)
    mixed_out, mixed_grads = gradients(lambda **given: ops.layer_norm(**given, **OPTIONS), mixed)
    assert torch.equal(out, mixed_out)
    for name, grad in mixed_grads.items():
        torch.testing.assert_close(grad.to(torch.bfloat16), grads[name], atol=0.0, rtol=2**-7)


@pytest.mark.parametrize(("p", "seed", "site", "shape"), [
    (0.1, 0, 0, (3, 16)), (0.5, -7, 2**32 - 1, (65, 100)), (0.9, 2**40, 1, (4, 5, 33)), (0.003, 1, 2, (200, 768)),
])  # fmt: skip
def test_dropout_bits(backend, p, seed, site, shape) -> None:
    """The mask read from the gradient is the contract's, bit for bit."""
    options = {"dropout_p": p, "rng": rng.make(seed, 2**33 + 6), "site": site}
    x = torch.zeros(shape, requires_grad=True)
    residual = torch.randn(shape, requires_grad=True)
    y = ops.layer_norm(x, torch.ones(shape[-1]), torch.zeros(shape[-1]), residual=residual, **options)
    dx, dresidual = torch.autograd.grad(y, (x, residual), torch.randn(shape))
    assert torch.equal(dx != 0, mask_of(x, options) & (dresidual != 0))
    torch.testing.assert_close(dx, torch.where(mask_of(x, options), dresidual * keep_scale(p), 0.0))
    assert not torch.equal(mask_of(x, options), mask_of(x, {**options, "rng": rng.make(seed, 7)}))


@pytest.mark.too_long_to_emulate
@pytest.mark.parametrize("dropout", [False, True])
def test_large_native_calls_have_the_bits_of_small_ones(native_op, native_backward, dtype, dropout) -> None:
    """From 8 MiB on the CPU writes past its caches: by other instructions, and row by row the same numbers."""
    given = make((8300, 256), dtype)
    rest = (OPTIONS["dropout_p"], OPTIONS["rng"], OPTIONS["site"]) if dropout else (0.0, None, 0)
    grad = torch.randn(8300, 256).to(dtype)

    def both_ways(rows: int) -> list[Tensor]:
        x, residual = given["x"][:rows], given["residual"][:rows]
        saved = native_op(x, given["x_bias"], residual, given["weight"], given["bias"], EPS, *rest)
        back = native_backward(grad[:rows], *saved[1:], given["weight"], given["bias"], given["x_bias"], *rest)
        return [*saved, *back[:2]]

    for large, small in zip(both_ways(8300), both_ways(99), strict=True):
        assert torch.equal(large[: len(small)], small)
        assert torch.isfinite(large).all()


def test_fresh_seed_follows_the_generator(backend) -> None:
    inputs = make((8, 64))
    torch.manual_seed(5)
    first, second = ops.layer_norm(**inputs, dropout_p=0.5), ops.layer_norm(**inputs, dropout_p=0.5)
    torch.manual_seed(5)
    assert torch.equal(ops.layer_norm(**inputs, dropout_p=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dropout", [False, True])
def test_all_outputs_agree(native_op, dtype, parts, dropout) -> None:
    """The sum that is saved, mean and rstd: native as the reference has them."""
    given = make((7, 5, 72), dtype, parts)
    arguments = [given.get(n) for n in ("x", "x_bias", "residual", "weight", "bias")]
    p, state, site = (OPTIONS["dropout_p"], OPTIONS["rng"], OPTIONS["site"]) if dropout else (0.0, None, 0)
    outputs = native_op(*arguments, EPS, p, state, site)
    expected = reference.layer_norm(*arguments, EPS, p, state, site)
    for name, a, b in zip(("y", "sum", "mean", "rstd"), outputs, expected, strict=True):
        tolerance = max(1e-5, torch.finfo(dtype).eps)
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_statistics_hold_far_from_zero(backend) -> None:
    """A large common offset must not cancel the variance away."""
    x = torch.randn(4, 256) + 1000.0
    weight, bias = torch.ones(256), torch.zeros(256)
    expected = F.layer_norm(x.double(), (256,), eps=EPS)
    assert (ops.layer_norm(x, weight, bias) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("columns", [1, 32])
def test_row_without_variance_is_the_bias(backend, columns) -> None:
    inputs = {"x": torch.full((2, columns), 3.0), "weight": torch.ones(columns), "bias": torch.full((columns,), 0.5)}
    torch.testing.assert_close(ops.layer_norm(**inputs), torch.full((2, columns), 0.5))


def test_non_contiguous(backend, gradients) -> None:
    wide = torch.randn(6, 3, 96)
    inputs = {"x": wide[:, 1, ::2], "residual": wide.permute(1, 0, 2)[2, :, :48], **{
        n: torch.randn(96)[::2] for n in ("weight", "bias", "x_bias")
    }}  # fmt: skip

    def run(**given: Tensor) -> Tensor:
        return ops.layer_norm(**given, **OPTIONS)

    out, grads = gradients(run, inputs)
    expected, expected_grads = gradients(run, {n: x.contiguous() for n, x in inputs.items()})
    assert torch.equal(out, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


def test_gradient_with_any_strides(backend) -> None:
    x = torch.randn(6, 10, requires_grad=True)
    weight, bias = torch.ones(10), torch.zeros(10)
    for grad in (torch.randn(10, 6).t(), torch.randn(10).expand(6, 10)):
        (actual,) = torch.autograd.grad(ops.layer_norm(x, weight, bias), x, grad)
        (expected,) = torch.autograd.grad(plain(x, weight, bias), x, grad)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradcheck(backend, parts, dropout) -> None:
    inputs = make((4, 17), torch.float64, parts)
    names = list(inputs)
    options = OPTIONS if dropout else {}
    leaves = [x.requires_grad_() for x in inputs.values()]
    assert torch.autograd.gradcheck(lambda *given: ops.layer_norm(**dict(zip(names, given)), **options), leaves)  # noqa: B905


@pytest.mark.parametrize(("parts", "dropout"), [("", False), ("bias+residual", True), ("residual", False)])
def test_opcheck(native_op, native_backward, parts, dropout) -> None:
    given = {name: x.requires_grad_() for name, x in make((5, 24), parts=parts).items()}
    arguments = [given.get(n) for n in ("x", "x_bias", "residual", "weight", "bias")]
    rest = (OPTIONS["dropout_p"], OPTIONS["rng"], OPTIONS["site"]) if dropout else (0.0, None, 0)
    torch.library.opcheck(native_op, (*arguments, EPS, *rest))
    with torch.no_grad():
        _, total, mean, rstd = native_op(*arguments, EPS, *rest)
    saved = given["x"].detach() if total.numel() == 0 else total
    torch.library.opcheck(
        native_backward,
        (torch.randn(5, 24), saved, mean, rstd, given["weight"].detach(), given["bias"].detach(), arguments[1], *rest),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compiles(backend, assert_compiles) -> None:
    assert_compiles(lambda **given: ops.layer_norm(**given, **OPTIONS) * 2, make((6, 16)))


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs = make((300, 100))

    def run() -> list[Tensor]:
        out, grads = gradients(lambda **given: ops.layer_norm(**given, **OPTIONS), inputs)
        return [out, *grads.values()]

    assert_deterministic(run)


def test_autocast_casts_the_residual_to_x(backend) -> None:
    inputs = make((4, 32), torch.bfloat16)
    expected = ops.layer_norm(**inputs)
    inputs["residual"] = inputs["residual"].float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.layer_norm(**inputs), expected)


def test_only_what_needs_a_gradient_gets_one(backend) -> None:
    inputs = make((4, 32))
    inputs["weight"].requires_grad_()
    ops.layer_norm(**inputs).sum().backward()
    assert inputs["weight"].grad is not None
    assert all(x.grad is None for name, x in inputs.items() if name != "weight")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(2, 0)}, ValueError, r"layer_norm: x must have shape \[..., N\] with N > 0, got \[2, 0\]"),
        ({"weight": torch.ones(7)}, ValueError, r"layer_norm: weight must have shape \[8\], got \[7\]"),
        ({"bias": torch.ones(8).half()}, TypeError, "layer_norm: bias must be float32, got float16"),
        ({"x_bias": torch.ones(1, 8)}, ValueError, r"layer_norm: x_bias must have shape \[8\], got \[1, 8\]"),
        ({"residual": torch.ones(3, 8)}, ValueError, r"layer_norm: residual must have shape \[2, 8\], got \[3, 8\]"),
        ({"dropout_p": 1.0}, ValueError, r"layer_norm: dropout_p must be in \[0.0, 1.0\), got 1.0"),
        ({"dropout_p": -0.1}, ValueError, "layer_norm: dropout_p must be in"),
        ({"site": -1}, ValueError, "layer_norm: site must be in"),
        ({"rng": torch.zeros(2)}, TypeError, "layer_norm: rng must be int64, got float32"),
        ({"rng": torch.zeros(3).long()}, ValueError, r"layer_norm: rng must have shape \[2\], got \[3\]"),
    ],
)
def test_errors(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.layer_norm(**{**make((2, 8)), **change})
