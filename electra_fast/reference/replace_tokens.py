"""Fake tokens into the text, and the labels that say where (Clark et al. 2020, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .packed import values_readable


def replace_tokens(input_ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the ids with the samples written in, and True where an id differs from the original.

    Several samples at one position give the floor of their mean, as google-research/electra's ``scatter_update`` does.
    """
    tokens = input_ids.shape[0]
    used = targets != -100
    if values_readable(positions) and bool((used & ((positions < 0) | (positions >= tokens))).any()):
        raise ValueError(
            f"replace_tokens: positions must be in [0, {tokens}) where used, got {positions[used].tolist()}"
        )
    position = torch.where(used, positions, tokens)  # unused slots write behind the end
    counts = input_ids.new_zeros(tokens + 1).index_add(0, position, used.long())[:tokens]
    sums = input_ids.new_zeros(tokens + 1).index_add(0, position, sampled)[:tokens]
    mean = torch.div(sums, counts.clamp(min=1), rounding_mode="floor")
    corrupted = torch.where(counts > 0, mean, input_ids)
    return corrupted, corrupted != input_ids
