"""ELECTRA's replaced-token detection (Clark et al. 2020, section 2): one logit a token, binary cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import accumulation


def discriminator_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``max(l, 0) - l·y + log1p(exp(-|l|))`` of ``l = hidden · weight + bias``, summed where mask; and ``l``."""
    dtype = accumulation(hidden.dtype)
    logits = hidden.to(dtype) @ weight.to(dtype).flatten() + bias.to(dtype)
    losses = logits.clamp(min=0) - logits * labels + torch.log1p(torch.exp(-logits.abs()))
    if mask is not None:
        losses = torch.where(mask, losses, torch.zeros_like(losses))
    return losses.sum(), logits.detach()
