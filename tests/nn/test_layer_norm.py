"""LayerNorm against torch.nn.LayerNorm and the composition it fuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from electra_fast.nn import LayerNorm


@pytest.mark.parametrize("shape", [(48,), (6, 8)])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 1e-3}])
def test_is_torchs(shape, options):
    theirs, ours = nn.LayerNorm(shape, **options), LayerNorm(shape, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3, *shape)
    torch.testing.assert_close(ours(x), theirs(x))


def test_bias_and_residual_join_in():
    norm = LayerNorm(32)
    x, residual = torch.randn(2, 7, 32, requires_grad=True), torch.randn(2, 7, 32, requires_grad=True)
    bias = torch.randn(32, requires_grad=True)
    fused = norm(x, residual=residual, x_bias=bias)
    plain = nn.functional.layer_norm(x + bias + residual, (32,), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(fused, plain)
    inputs = (x, residual, bias, norm.weight, norm.bias)
    gradient = torch.randn_like(plain)
    for ours, expected in zip(
        torch.autograd.grad(fused, inputs, gradient), torch.autograd.grad(plain, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_dropout_follows_its_site_and_seed():
    norm, x, rng = LayerNorm(64), torch.randn(9, 64), torch.tensor([3, 1])
    first = norm(x, dropout_p=0.5, rng=rng, site=7)
    assert torch.equal(first, norm(x, dropout_p=0.5, rng=rng, site=7))
    assert not torch.equal(first, norm(x, dropout_p=0.5, rng=rng, site=8))
    torch.manual_seed(5)
    drawn = norm(x, dropout_p=0.5)
    torch.manual_seed(5)
    assert torch.equal(drawn, norm(x, dropout_p=0.5))


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"LayerNorm: x must end in the dimensions \[32\], got shape \[4, 31\]"):
        LayerNorm(32)(torch.randn(4, 31))


@pytest.mark.parametrize("affine", [True, False])
def test_an_empty_batch(affine):
    ours = LayerNorm((2, 8), elementwise_affine=affine)
    assert ours(torch.empty(0, 2, 8)).shape == (0, 2, 8)
