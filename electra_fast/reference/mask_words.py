"""Which words are masked: `mask_tokens`, with words in place of tokens.

Whole-word masking is BERT's (google-research/bert, README of May 2019, ``create_pretraining_data.py``): words in random
order, each taken if it still fits into the budget. That loop is unrolled here into a few rounds over all tokens at
once, so that shapes depend on shapes alone and nothing is read back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .mask_tokens import DECISION_ROW, SELECTION_ROW, UNUSED, budgets, slots
from .packed import check_cu_seqlens, sequence_of
from .philox import word_at

ROUNDS = 4


def words_of(candidate: Tensor, starts: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Of each token ``[T]``: the index of its word's first token, and its word's number of tokens.

    A word begins at a candidate that starts one, that is first in its sequence, or that follows a token which is no
    candidate, and goes on to the next. Tokens that are no candidates are words of their own.
    """
    tokens = candidate.shape[0]
    token = torch.arange(tokens, device=candidate.device)
    boundary = torch.zeros(tokens + 1, dtype=torch.bool, device=candidate.device).scatter(0, cu_seqlens.long(), True)
    begins = starts | ~candidate | boundary[:tokens]
    begins[1:] |= ~candidate[:-1]
    first = torch.where(begins, token, 0).cummax(0).values
    size = torch.zeros_like(token).scatter_add(0, first, torch.ones_like(token))
    return first, size[first]


def mask_words(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    word_starts: Tensor,
    mask_id: int,
    probability: float,
    max_predictions: int,
    replace_probability: float,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the ids with [MASK] written in, and positions and targets of the slots (0 and -100 where unused)."""
    tokens = input_ids.shape[0]
    check_cu_seqlens("mask_words", "cu_seqlens", cu_seqlens, tokens)
    if tokens == 0 or cu_seqlens.shape[0] == 1:
        nothing = input_ids.new_zeros(max_predictions)
        return input_ids.clone(), nothing, torch.full_like(nothing, UNUSED)
    token = torch.arange(tokens, device=input_ids.device)
    sequence, real = sequence_of(cu_seqlens, tokens)
    candidate = real & ~torch.isin(input_ids, special_ids)
    first, size = words_of(candidate, word_starts[input_ids], cu_seqlens)
    left = budgets("mask_words", candidate, cu_seqlens, probability, -1, max_predictions)

    key = word_at(first, SELECTION_ROW, rng, site)  # all tokens of a word have it: a stable sort keeps them together
    order = torch.argsort((sequence << 33) | ((~candidate).long() << 32) | key, stable=True)
    within = (token - first)[order]  # of its word
    sequence, size, waiting = sequence[order], size[order], candidate[order]
    begin = cu_seqlens.long()[sequence]
    chosen = torch.zeros_like(waiting)
    for _ in range(ROUNDS):
        fits = waiting & (size <= left[sequence])
        before = fits.long().cumsum(0) - fits.long()
        before = before - before[begin] - within  # tokens of words that fit, ahead of this one's in its sequence
        taken = fits & (before + size <= left[sequence])
        left = left.scatter_add(0, sequence, -taken.long())
        chosen, waiting = chosen | taken, fits & ~taken

    chosen = torch.zeros_like(chosen).scatter(0, order, chosen)
    positions = slots(chosen, token, max_predictions, 0)
    used = torch.arange(max_predictions, device=input_ids.device) < chosen.sum()
    masked = chosen & (word_at(token, DECISION_ROW, rng, site) < math.floor(replace_probability * 2**32))
    return torch.where(masked, mask_id, input_ids), positions, torch.where(used, input_ids[positions], UNUSED)
