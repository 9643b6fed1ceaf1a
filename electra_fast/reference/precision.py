"""The accumulation dtype of the contract, and dropout applied in it."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import dropout_mask, keep_scale


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dropout(x: Tensor, p: float, rng: Tensor | None, site: int) -> Tensor:
    """``x`` with dropped elements zeroed and the rest scaled; x is seen as ``[rows, last dimension]``."""
    if p == 0.0:
        return x
    columns = x.shape[-1]
    keep = dropout_mask(x.numel() // max(columns, 1), columns, p, rng, site).view(x.shape)
    return torch.where(keep, x * keep_scale(p), torch.zeros_like(x))
