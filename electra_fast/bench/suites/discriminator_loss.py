"""Projection to one logit and binary cross-entropy: the discriminator's head."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops
from electra_fast.bench.case import Case

from .op import BYTES, DTYPES, TOLERANCE, Function, compiled, contender, ours


def _torch(dropout: float) -> Function:
    def run(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        logits = F.linear(hidden, weight, bias).squeeze(-1).float()
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")

    return run


def _ours(dropout: float) -> Function:
    return lambda hidden, weight, bias, labels: ops.discriminator_loss(hidden, weight, bias, labels)[0]


def _inputs(tokens: int, width: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    hidden = torch.randn(tokens, width, device=device, dtype=dtype)
    weight = torch.randn(1, width, device=device, dtype=dtype) * width**-0.5
    bias = torch.randn(1, device=device, dtype=dtype)
    labels = torch.rand(tokens, device=device) < 0.1
    leaves = (x.requires_grad_() for x in (hidden, weight, bias))
    return *leaves, labels, torch.ones((), device=device)


def cases(device: str) -> list[Case]:
    """The widths of small and base, forward and backward."""
    tokens = 32768 if device.startswith("cuda") else 16384
    found = []
    for width, dtype in itertools.product((256, 768), DTYPES):
        found.append(
            Case(
                suite="discriminator_loss",
                name=f"{tokens}x{width} {dtype} forward+backward",
                dtype=dtype,
                contenders=(
                    contender("torch", _torch, backward=True, setting="linear, binary_cross_entropy_with_logits"),
                    *ours(_ours, device=device, backward=True),
                    compiled("torch.compile", _torch, backward=True),
                ),
                inputs=lambda shared, w=width, d=dtype: _inputs(tokens, w, DTYPES[d], device),
                device=device,
                shape={"rows": tokens, "columns": width},
                bytes=3.0 * BYTES[dtype] * tokens * width,  # hidden read twice, its gradient written
                tokens=tokens,
                tolerance=TOLERANCE[dtype],
                cold=True,
                level="quick" if (width, dtype) == (256, "float32") else "full",
            )
        )
    return found
