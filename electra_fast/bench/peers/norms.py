"""Layer norms of others: apex and Liger-Kernel, with torch's add and dropout before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from electra_fast.bench.case import Absent


@dataclass(frozen=True)
class Peer:
    """``build(dropout)`` makes a function of x, residual, x_bias, weight, bias."""

    name: str
    build: Callable[[float], Callable[..., Tensor]]
    setting: str


def peers(device: str, dropout: float, eps: float) -> list[Peer]:
    """Kernels for GPUs; on the CPU there is no other than torch's."""
    if not device.startswith("cuda"):
        return []
    return [
        Peer("apex", lambda rate: _after_dropout(_apex(eps), rate), "fused_layer_norm_affine after torch's dropout"),
        Peer("Liger-Kernel", lambda rate: _after_dropout(_liger(eps), rate), "LigerLayerNorm after torch's dropout"),
    ]


def _after_dropout(norm: Callable[..., Tensor], dropout: float) -> Callable[..., Tensor]:
    def run(x: Tensor, residual: Tensor, x_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return norm(residual + F.dropout(x + x_bias, dropout), weight, bias)

    return run


def _apex(eps: float) -> Callable[..., Any]:
    try:
        from apex.normalization.fused_layer_norm import fused_layer_norm_affine
    except ImportError as error:
        raise Absent(f"apex is not installed ({error})") from None
    return lambda x, weight, bias: fused_layer_norm_affine(x, weight, bias, tuple(weight.shape), eps)


def _liger(eps: float) -> Callable[..., Any]:
    try:
        from liger_kernel.ops.layer_norm import LigerLayerNormFunction
    except ImportError as error:
        raise Absent(f"liger-kernel is not installed ({error})") from None
    return lambda x, weight, bias: LigerLayerNormFunction.apply(x, weight, bias, eps)
