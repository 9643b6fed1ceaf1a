"""Which tokens are masked (Clark et al. 2020, section 2; google-research/electra ``pretrain_helpers.py``).

Everything is computed for all tokens and all slots at once, so that shapes depend on shapes alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .packed import check_cu_seqlens, sequence_of, values_readable
from .philox import word_at

UNUSED = -100
SELECTION_ROW, DECISION_ROW, _REPLACEMENT_ROW = 0, 1, 2
_REPLACEMENT_DECISION_BLOCK = 2**31


def _exclusive_sum(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def slots(used: Tensor, values: Tensor, number: int, unused: int) -> Tensor:
    """The values where used, in order, in the first of ``number`` places; the rest hold ``unused``."""
    place = torch.where(used, used.cumsum(0) - 1, number).clamp(max=number)
    return values.new_full((number + 1,), unused).scatter(0, place, values)[:number]


def budgets(
    op: str, candidate: Tensor, cu_seqlens: Tensor, probability: float, max_per_sequence: int, max_predictions: int
) -> Tensor:
    """How many tokens of each sequence may be chosen, int64 ``[B]``.

    Raises: ValueError on the CPU if the slots cannot hold them.
    """
    length = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
    number = torch.round(length.to(torch.float64) * probability).long()  # half to even
    if max_per_sequence >= 0:
        number = number.clamp(max=max_per_sequence)
    before = _exclusive_sum(candidate.long())[cu_seqlens.long()]
    number = torch.where(length > 0, number.clamp(min=1), 0)
    number = torch.minimum(number, before[1:] - before[:-1])
    if values_readable(number) and int(number.sum()) > max_predictions:
        raise ValueError(
            f"{op}: max_predictions must be at least the number of chosen tokens ({int(number.sum())}), "
            f"got {max_predictions}; max_predictions_bound always suffices"
        )
    return number


def _without_replacement(
    candidate: Tensor,
    sequence: Tensor,
    cu_seqlens: Tensor,
    number: Tensor,
    max_predictions: int,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions and use of each slot, and whether each token is chosen: the smallest (word, index) of each sequence."""
    token = torch.arange(candidate.shape[0], device=candidate.device)
    word = word_at(token, SELECTION_ROW, rng, site)
    order = torch.argsort((sequence << 33) | ((~candidate).long() << 32) | word, stable=True)
    rank = torch.empty_like(order).scatter(0, order, token) - cu_seqlens[sequence]
    chosen = candidate & (rank < number[sequence])
    chosen = chosen & (chosen.cumsum(0) <= max_predictions)
    positions = slots(chosen, token, max_predictions, 0)
    slot = torch.arange(max_predictions, device=candidate.device)
    return positions, slot < chosen.sum(), chosen


def _with_replacement(
    candidate: Tensor, cu_seqlens: Tensor, number: Tensor, max_predictions: int, rng: Tensor, site: int, decide: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions and use of each slot, in the order of the draws, and the tokens that some draw turned into [MASK]."""
    tokens = candidate.shape[0]
    before = _exclusive_sum(candidate.long())  # candidates before each token
    candidates = torch.full((tokens + 1,), 0, device=candidate.device)
    token = torch.arange(tokens, device=candidate.device)
    candidates = candidates.scatter(0, torch.where(candidate, before[:-1], tokens), token)  # position of each candidate

    first_slot = _exclusive_sum(number)
    slot = torch.arange(max_predictions, device=candidate.device)
    sequence = torch.searchsorted(first_slot[1:], slot, right=True).clamp(max=number.shape[0] - 1)
    draw = slot - first_slot[sequence]
    row = _REPLACEMENT_ROW + sequence
    begin, end = before[cu_seqlens[:-1].long()][sequence], before[cu_seqlens[1:].long()][sequence]
    picked = begin + ((word_at(draw, row, rng, site) * (end - begin)) >> 32)
    used = slot < first_slot[-1]
    positions = torch.where(used, candidates[picked.clamp(max=tokens)], 0)
    masks = word_at(draw, row, rng, site, _REPLACEMENT_DECISION_BLOCK) < decide
    writes = used & masks & (positions != cu_seqlens[sequence])
    masked = torch.zeros(tokens + 1, dtype=torch.bool, device=candidate.device)
    masked = masked.scatter(0, torch.where(writes, positions, tokens), True)[:tokens]
    return positions, used, masked


def mask_tokens(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    mask_id: int,
    probability: float,
    max_predictions: int,
    max_per_sequence: int,
    replace_probability: float,
    with_replacement: bool,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the ids with [MASK] written in, and positions and targets of the slots (0 and -100 where unused)."""
    tokens = input_ids.shape[0]
    check_cu_seqlens("mask_tokens", "cu_seqlens", cu_seqlens, tokens)
    if tokens == 0 or cu_seqlens.shape[0] == 1:
        nothing = input_ids.new_zeros(max_predictions)
        return input_ids.clone(), nothing, torch.full_like(nothing, UNUSED)
    sequence, real = sequence_of(cu_seqlens, tokens)
    candidate = real & ~torch.isin(input_ids, special_ids)

    number = budgets("mask_tokens", candidate, cu_seqlens, probability, max_per_sequence, max_predictions)
    decide = math.floor(replace_probability * 2**32)
    if with_replacement:
        positions, used, masked = _with_replacement(candidate, cu_seqlens, number, max_predictions, rng, site, decide)
    else:
        positions, used, chosen = _without_replacement(
            candidate, sequence, cu_seqlens, number, max_predictions, rng, site
        )
        token = torch.arange(tokens, device=input_ids.device)
        masked = chosen & (word_at(token, DECISION_ROW, rng, site) < decide)
    targets = torch.where(used, input_ids[positions], UNUSED)
    return torch.where(masked, mask_id, input_ids), positions, targets
