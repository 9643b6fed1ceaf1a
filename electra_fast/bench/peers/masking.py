"""Masking as collators do it, in plain torch on a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_masked(input_ids: Tensor, special: Tensor, probability: float, mask_id: int) -> tuple[Tensor, Tensor]:
    """ELECTRA's masking as a collator does it: ``probability`` of the tokens that are not special, 85 % of them become
    [MASK]. Returns the masked ids, and the positions [B, k].
    """
    scores = torch.rand(input_ids.shape, device=input_ids.device).masked_fill(torch.isin(input_ids, special), -1.0)
    count = max(1, round(input_ids.shape[1] * probability))
    positions = scores.topk(count, dim=1).indices
    replaced = torch.rand(positions.shape, device=input_ids.device) < 0.85
    originals = input_ids.gather(1, positions)
    return input_ids.scatter(1, positions, torch.where(replaced, mask_id, originals)), positions
