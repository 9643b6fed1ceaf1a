"""The Triton kernels of gelu against the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from electra_fast import ops

OP = "gelu"
SHAPES = [(1, 1), (7, 40), (37, 256), (3, 3072), (2, 3, 5, 67), (13,), (0, 8), (3, 0)]


def make(shape, dtype, device, bias_dtype=None) -> dict:
    x = (3 * torch.randn(shape)).to(device, dtype)
    return {"x": x, "bias": torch.randn(shape[-1]).to(device, bias_dtype)} if bias_dtype else {"x": x}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, dtype, device, assert_matches_reference) -> None:
    for bias_dtype in (None, dtype, torch.float32):
        assert_matches_reference(ops.gelu, make(shape, dtype, device, bias_dtype))


def test_more_rows_than_programs(device, monkeypatch, assert_matches_reference) -> None:
    """A program takes several blocks of rows; the partial sums of all are added."""
    from electra_fast.triton import partial_sums

    monkeypatch.setattr(partial_sums, "MOST_PARTIALS", 3)
    assert_matches_reference(ops.gelu, make((70, 264), torch.float32, device, torch.float32))


def test_tails(device, triton_backend) -> None:
    """Far from zero gelu is 0 or x, and never NaN; between, the relative error stays small in the left tail too."""
    x = torch.tensor([-1e30, -50.0, 0.0, -0.0, 50.0, 1e30], device=device, requires_grad=True)
    y = ops.gelu(x)
    assert y.tolist() == [0.0, 0.0, 0.0, 0.0, 50.0, pytest.approx(1e30)]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    tail = torch.linspace(-5, -1, 400, device=device)
    assert (ops.gelu(tail) / F.gelu(tail.double()) - 1).abs().max() < 1e-4
    assert ops.gelu(torch.tensor([float("nan")], device=device)).isnan().all()


def test_strides(device, triton_backend) -> None:
    wide = torch.randn(9, 2, 96, device=device)
    for x in (wide[:, 1, ::2], wide[0].t()):
        assert torch.equal(ops.gelu(x), ops.gelu(x.contiguous()))
    x = torch.randn(6, 10, device=device, requires_grad=True)
    grad = torch.randn(10, 6, device=device).t()
    (expected,) = torch.autograd.grad(F.gelu(x), x, grad)
    (actual,) = torch.autograd.grad(ops.gelu(x), x, grad)
    torch.testing.assert_close(actual, expected)


def test_deterministic(device, triton_backend) -> None:
    x = torch.randn(130, 200, device=device, requires_grad=True)
    bias = torch.randn(200, device=device, requires_grad=True)
    grad = torch.randn(130, 200, device=device)
    first, second = (torch.autograd.grad(ops.gelu(x, bias), (x, bias), grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
