"""The generator's samples written into the text, and the labels that say where."""

from __future__ import annotations

import torch
from torch import Tensor

from electra_fast import ops
from electra_fast.bench.case import Case

from .op import Function, contender, ours


def _torch(dropout: float) -> Function:
    def run(ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
        corrupted = ids.scatter(0, positions, sampled)
        return corrupted, corrupted != ids

    return run


def _ours(dropout: float) -> Function:
    return ops.replace_tokens


def _inputs(tokens: int, device: str) -> tuple[Tensor, ...]:
    ids = torch.randint(30522, (tokens,), device=device)
    positions = torch.randperm(tokens, device=device)[: tokens * 15 // 100].sort().values
    targets = ids[positions]
    fake = torch.rand(targets.shape, device=device) < 0.5
    return ids, positions, targets, torch.where(fake, torch.randint(30522, targets.shape, device=device), targets)


def cases(device: str) -> list[Case]:
    """The tokens of a step."""
    return [
        Case(
            suite="replace_tokens",
            name=f"{tokens} tokens",
            dtype="int64",
            contenders=(contender("torch", _torch, setting="scatter, !="), *ours(_ours, device=device)),
            inputs=lambda shared, t=tokens: _inputs(t, device),
            device=device,
            shape={"tokens": tokens},
            bytes=17.0 * tokens + 24.0 * (tokens * 15 // 100),
            tokens=tokens,
            select=lambda result, inputs: [x.float() for x in result],
            level=level,
        )
        for tokens, level in ((16384, "quick"), (131072, "full"))
    ]
