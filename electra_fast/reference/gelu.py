"""The exact Gaussian error linear unit (Hendrycks & Gimpel 2016)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .precision import accumulation


def gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """``z = x + bias; z/2 · (1 + erf(z/√2))``, written with ``erfc(-x) = 1 + erf(x)``, which keeps the left tail."""
    z = x.to(accumulation(x.dtype))
    if bias is not None:
        z = z + bias
    return (0.5 * z * torch.erfc(z * -math.sqrt(0.5))).to(x.dtype)
