"""Linear and cross-entropy without logits in memory, of others; they have no sampling, which torch then does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast.bench.case import Absent


@dataclass(frozen=True)
class Peer:
    """``build(0.0)`` makes a function of hidden, weight, bias, targets."""

    name: str
    build: Callable[[float], Callable[..., tuple[Tensor, Tensor]]]
    setting: str


def peers(device: str) -> list[Peer]:
    """Kernels for GPUs."""
    if not device.startswith("cuda"):
        return []
    sampling = "and a sample from chunks of torch's logits"
    return [
        Peer("cut-cross-entropy", _cut, f"linear_cross_entropy {sampling}"),
        Peer("Liger-Kernel", _liger, f"LigerFusedLinearCrossEntropyFunction {sampling}"),
    ]


@torch.no_grad()
def _sample(hidden: Tensor, weight: Tensor, bias: Tensor, rows: int = 1024) -> Tensor:
    """Samples, chunk by chunk, so that memory stays small."""
    chunks = (torch.softmax(F.linear(part, weight, bias).float(), -1) for part in hidden.split(rows))
    return torch.cat([torch.multinomial(chunk, 1) for chunk in chunks])


def _cut(dropout: float) -> Callable[..., tuple[Tensor, Tensor]]:
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError as error:
        raise Absent(f"cut-cross-entropy is not installed ({error})") from None

    def run(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss = linear_cross_entropy(hidden, weight, targets, bias=bias, reduction="none")
        return loss.float(), _sample(hidden, weight, bias)

    return run


def _liger(dropout: float) -> Callable[..., tuple[Tensor, Tensor]]:
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError as error:
        raise Absent(f"liger-kernel is not installed ({error})") from None

    def run(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss = liger_fused_linear_cross_entropy(hidden, weight, targets, bias=bias, reduction="none")
        return loss.float(), _sample(hidden, weight, bias)

    return run
