"""Layer normalisation of a residual sum with dropout (Ba et al. 2016; the post-LN block of Vaswani et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import accumulation, dropout


def normalize(s: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``(s - mean) · rstd · weight + bias`` over the last dimension with biased variance, mean and rstd ``[...]``."""
    mean = s.mean(-1, keepdim=True)
    centred = s - mean
    rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return centred * rstd * weight.to(s.dtype) + bias.to(s.dtype), mean.squeeze(-1), rstd.squeeze(-1)


def layer_norm(
    x: Tensor,
    x_bias: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``LN(residual + dropout(x + x_bias))``; returns y, the sum (empty where it is x), mean and rstd ``[rows]``."""
    s = x.to(accumulation(x.dtype))
    if x_bias is not None:
        s = s + x_bias
    s = dropout(s, dropout_p, rng, site)
    if residual is not None:
        s = residual + s
    y, mean, rstd = normalize(s, weight, bias, eps)
    plain = x_bias is None and residual is None and dropout_p == 0.0
    total = x.new_empty(0) if plain else s.detach().to(x.dtype)
    return y.to(x.dtype), total, mean.detach().flatten(), rstd.detach().flatten()
