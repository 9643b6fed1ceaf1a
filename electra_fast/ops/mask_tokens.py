"""Choosing the tokens to mask, on the device, with static shapes."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from . import backend, checks


class MaskedTokens(NamedTuple):
    """Ids with [MASK] written in ``[T]``; positions and original ids of the slots ``[P]`` (0 and -100 where unused)."""

    input_ids: Tensor
    positions: Tensor
    targets: Tensor


def max_predictions_bound(tokens: int, sequences: int, probability: float) -> int:
    """Slots that always suffice for ``tokens`` tokens: ``floor(tokens · probability) + sequences``."""
    return math.floor(tokens * probability) + sequences


def mask_tokens(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    *,
    mask_id: int,
    probability: float,
    max_predictions: int,
    max_per_sequence: int | None = None,
    replace_probability: float = 0.85,
    with_replacement: bool = False,
    rng: Tensor,
    site: int = 0,
) -> MaskedTokens:
    """Choose ``k = max(1, min(max_per_sequence, round(n · probability)))`` tokens of each sequence of length n.

    A chosen token becomes ``mask_id`` with ``replace_probability``, else it stays; there is no random replacement.

    Args:
        input_ids: int64 ``[T]``, packed; cu_seqlens: int32 ``[B+1]``.
        special_ids: int64 ``[n]``, ids that are never chosen. They count in a sequence's length, as in Google's code.
        max_predictions: P, the slots for all sequences together; `max_predictions_bound` always suffices, and too few
            are an error on the CPU.
        max_per_sequence: cap on k; None: no cap.
        with_replacement: Google's rule: k independent draws, one slot each; a token drawn twice is masked if either
            draw says so, and the first token of a sequence is never written.
        rng: int64 ``[2]`` = (seed, step); site: counter of this place.

    Returns: `MaskedTokens`. Positions ascend (with replacement: in the order of the draws).

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape, device or value and, on the CPU, too few slots.

    Source: Clark et al. 2020; google-research/electra ``pretrain_helpers.py``.
    """
    op = "mask_tokens"
    check(op, input_ids, cu_seqlens, special_ids, probability, replace_probability, max_predictions, rng, site)
    if max_per_sequence is not None and max_per_sequence < 1:
        raise ValueError(f"{op}: max_per_sequence must be at least 1 or None, got {max_per_sequence}")
    cap = -1 if max_per_sequence is None else max_per_sequence
    args = (
        input_ids, cu_seqlens, special_ids, mask_id, probability, max_predictions, cap, replace_probability,
        with_replacement, rng, site,
    )  # fmt: skip
    return MaskedTokens(*backend.run(op, args, input_ids.device))


def check(
    op: str,
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    probability: float,
    replace_probability: float,
    max_predictions: int,
    rng: Tensor,
    site: int,
) -> None:
    """What choosing tokens and choosing words have in common. Raises: TypeError, ValueError."""
    checks.check(op, "input_ids", input_ids, checks.INT64, (None,))
    checks.check_cu_seqlens(op, "cu_seqlens", cu_seqlens, input_ids)
    checks.check(op, "special_ids", special_ids, checks.INT64, (None,), input_ids)
    checks.check(op, "rng", rng, checks.INT64, (2,), input_ids)
    checks.check_rng(op, None, site, input_ids)
    checks.check_range(op, "probability", probability, 0.0, 1.0)
    checks.check_range(op, "replace_probability", replace_probability, 0.0, 1.0)
    if max_predictions < 0:
        raise ValueError(f"{op}: max_predictions must be at least 0, got {max_predictions}")


def _fake(
    input_ids, cu_seqlens, special_ids, mask_id, probability, max_predictions, max_per_sequence, replace_probability,
    with_replacement, rng, site,
):  # fmt: skip
    slots = input_ids.new_empty(max_predictions)
    return input_ids.new_empty(input_ids.shape), slots, slots.new_empty(max_predictions)


backend.register("mask_tokens", _fake)
