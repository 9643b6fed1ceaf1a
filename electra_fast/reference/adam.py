"""ELECTRA's Adam (Kingma & Ba 2015 without bias correction; google-research/electra ``optimization.py``)."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import accumulation


@torch.no_grad()
def adam_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    weight_decay: list[float],
    learning_rate: Tensor,
    grad_scale: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """``m ← β1 m + (1-β1) g·c; v ← β2 v + (1-β2) (g·c)²; p ← p - lr (m/(√v + eps) + decay·p)``, in place.

    If c is NaN, nothing changes.
    """
    skip = grad_scale.isnan()
    for p, g, m, v, decay in zip(params, grads, exp_avg, exp_avg_sq, weight_decay, strict=True):
        dtype = accumulation(p.dtype)
        gradient = g.to(dtype) * grad_scale.to(dtype)
        first = beta1 * m.to(dtype) + (1.0 - beta1) * gradient
        second = beta2 * v.to(dtype) + (1.0 - beta2) * gradient.square()
        value = p.to(dtype)
        step = first / (second.sqrt() + eps) + decay * value
        for old, new in ((m, first), (v, second), (p, value - learning_rate.to(dtype) * step)):
            old.copy_(torch.where(skip, old, new.to(old.dtype)))
