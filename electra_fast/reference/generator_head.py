"""ELECTRA's generator output (Clark et al. 2020, section 2): masked-language-model loss and one sample a slot.

The sample is exact: Gumbel-max over groups of 64 columns (each group's mass in one score), then the inverse of the
cumulative distribution inside the winning group (docs/design.md, Random numbers).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .packed import values_readable
from .philox import random_words, word_at
from .precision import accumulation

GROUP = 64
_INSIDE_BLOCK = 2**31


def _uniform(words: Tensor) -> Tensor:
    """float32 in (0, 1]: ``(word + 0.5) · 2⁻³²``."""
    return (words.to(torch.float32) + 0.5) * 2.0**-32


@torch.no_grad()
def sample(logits: Tensor, rng: Tensor, site: int) -> Tensor:
    """One column per row of ``[P, V]``, drawn from softmax(logits) in float32."""
    slots, columns = logits.shape
    groups = (columns + GROUP - 1) // GROUP
    logits = F.pad(logits.to(torch.float32), (0, groups * GROUP - columns), value=float("-inf"))
    logits = logits.view(slots, groups, GROUP)
    largest = logits.amax(-1, keepdim=True)
    largest = torch.where(largest == float("-inf"), torch.zeros_like(largest), largest)
    weights = torch.exp(logits - largest)
    mass = weights.sum(-1)

    slot = torch.arange(slots, device=logits.device)
    group = torch.arange(groups, device=logits.device)
    exponential = -torch.log1p(-_uniform(word_at(group, slot.unsqueeze(1), rng, site)))
    winner = (largest.squeeze(-1) + torch.log(mass) - torch.log(exponential)).argmax(-1)

    weights, mass = weights[slot, winner], mass[slot, winner]
    inside = torch.full((1,), _INSIDE_BLOCK, device=logits.device)
    threshold = _uniform(random_words(inside, slot, rng, site)[..., 0]) * mass
    beyond = weights.cumsum(-1) > threshold.unsqueeze(-1)
    column = torch.arange(GROUP, device=logits.device)
    last = torch.where(weights > 0, column, 0).amax(-1)
    first = torch.where(beyond, column, GROUP).amin(-1)
    return winner * GROUP + torch.minimum(first, last)


def generator_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    temperature: float,
    disallow_correct: bool,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of ``l = hidden weightᵀ + bias``, per slot: ``logsumexp(l) - l[target]``, a sample, argmax, logsumexp."""
    columns = weight.shape[0]
    used = targets != -100
    if values_readable(targets) and bool((used & ((targets < 0) | (targets >= columns))).any()):
        raise ValueError(f"generator_head: targets must be in [0, {columns}) or -100, got {targets[used].tolist()}")
    dtype = accumulation(hidden.dtype)
    logits = hidden.to(dtype) @ weight.to(dtype).t() + bias.to(dtype)
    lse = torch.logsumexp(logits, dim=-1)
    target = torch.where(used, targets, 0).unsqueeze(-1)
    loss = torch.where(used, lse - logits.gather(-1, target).squeeze(-1), torch.zeros_like(lse))

    drawn_from = logits.detach() / temperature
    if disallow_correct:
        is_target = torch.arange(columns, device=logits.device) == target
        drawn_from = drawn_from.masked_fill(is_target, float("-inf"))
    sampled = torch.where(used, sample(drawn_from, rng, site), 0)
    predicted = torch.where(used, logits.detach().argmax(-1), 0)
    return loss, sampled, predicted, lse.detach()
