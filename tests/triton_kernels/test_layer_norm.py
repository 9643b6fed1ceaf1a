"""The Triton kernels of layer_norm against the reference, and their dropout bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.reference.philox import dropout_mask, keep_scale

SHAPES = [(1, 5), (5, 40), (3, 256), (2, 3, 129), (2, 768), (2, 1024), (2, 1000), (16,), (0, 16)]
PARTS = ["", "bias", "residual", "bias+residual"]


def make(shape, dtype, device, parts="bias+residual", parameter=None) -> dict[str, Tensor]:
    parameter = parameter or dtype
    vectors = {"weight": 1 + 0.1 * torch.randn(shape[-1]), "bias": torch.randn(shape[-1])}
    if "bias" in parts:
        vectors["x_bias"] = torch.randn(shape[-1])
    rows = {"x": torch.randn(shape)}
    if "residual" in parts:
        rows["residual"] = torch.randn(shape)
    return {n: t.to(device, dtype) for n, t in rows.items()} | {n: t.to(device, parameter) for n, t in vectors.items()}


def options(device, p=0.1, seed=11, step=3, site=5) -> dict:
    return {"dropout_p": p, "rng": rng.make(seed, step, device), "site": site}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, dtype, device, assert_matches_reference) -> None:
    for parts in PARTS:
        assert_matches_reference(ops.layer_norm, make(shape, dtype, device, parts))


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("shape", [(5, 40), (2, 3, 129), (2, 768)], ids=str)
def test_dropout_matches_reference(shape, parts, device, assert_matches_reference) -> None:
    given = options(device)
    assert_matches_reference(
        lambda **tensors: ops.layer_norm(**tensors, **given), make(shape, torch.float32, device, parts)
    )


def test_float32_parameters_beside_float16(device, assert_matches_reference) -> None:
    given = options(device)
    assert_matches_reference(
        lambda **tensors: ops.layer_norm(**tensors, **given),
        make((9, 64), torch.float16, device, parameter=torch.float32),
    )


@pytest.mark.parametrize(
    ("p", "seed", "site", "shape"),
    [(0.1, 0, 0, (3, 16)), (0.5, -7, 2**32 - 1, (9, 100)), (0.9, 2**40, 1, (2, 2, 33)), (0.003, 1, 2, (3, 768))],
)
def test_dropout_bits(p, seed, site, shape, device, triton_backend) -> None:
    """The mask read from the gradient is the contract's, bit for bit."""
    given = options(device, p, seed, 2**33 + 6, site)
    x = torch.zeros(shape, device=device, requires_grad=True)
    residual = torch.randn(shape, device=device, requires_grad=True)
    y = ops.layer_norm(
        x, torch.ones(shape[-1], device=device), torch.zeros(shape[-1], device=device), residual=residual, **given
    )
    dx, dresidual = torch.autograd.grad(y, (x, residual), torch.randn(shape, device=device))
    keep = dropout_mask(x.numel() // shape[-1], shape[-1], p, given["rng"], site).view(shape)
    assert torch.equal(dx != 0, keep & (dresidual != 0))
    torch.testing.assert_close(dx, torch.where(keep, dresidual * keep_scale(p), 0.0))


def test_more_rows_than_programs(device, monkeypatch, assert_matches_reference) -> None:
    from electra_fast.triton import partial_sums

    monkeypatch.setattr(partial_sums, "MOST_PARTIALS", 3)
    given = options(device)
    assert_matches_reference(lambda **t: ops.layer_norm(**t, **given), make((33, 40), torch.float32, device))


def test_large_values(device, triton_backend) -> None:
    """The variance of rows far from zero, in two passes; a constant row gives the bias."""
    x = torch.full((2, 64), 1000.0, device=device)
    x[0] += torch.linspace(-1, 1, 64, device=device)
    y = ops.layer_norm(x, torch.ones(64, device=device), torch.full((64,), 2.0, device=device))
    expected = torch.nn.functional.layer_norm(x[:1].double(), (64,), eps=1e-12) + 2
    torch.testing.assert_close(y[:1].double(), expected, rtol=0, atol=1e-3)
    assert torch.equal(y[1], torch.full((64,), 2.0, device=device))


def test_strides(device, triton_backend) -> None:
    wide = torch.randn(6, 2, 96, device=device)
    vector = torch.randn(96, device=device)[::2]
    x, residual = wide[:, 1, ::2], wide[:, 0, :48]
    expected = ops.layer_norm(x.contiguous(), vector.contiguous(), vector, residual=residual.contiguous())
    assert torch.equal(ops.layer_norm(x, vector, vector, residual=residual), expected)


def test_deterministic_and_compiles(device, triton_backend) -> None:
    inputs = {n: t.requires_grad_() for n, t in make((21, 72), torch.float32, device).items()}
    given = options(device)
    grad = torch.randn(21, 72, device=device)

    def gradients(function) -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(**inputs, **given), list(inputs.values()), grad)

    expected = gradients(ops.layer_norm)
    torch._dynamo.reset()
    for function in (ops.layer_norm, torch.compile(ops.layer_norm, fullgraph=True, backend="aot_eager")):
        for a, b in zip(gradients(function), expected, strict=True):
            assert torch.equal(a, b)
