"""Choosing whole words to mask, on the device, with static shapes."""

from __future__ import annotations

from torch import Tensor

from electra_fast import reference

from . import checks
from .mask_tokens import MaskedTokens, check


def mask_words(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    word_starts: Tensor,
    *,
    mask_id: int,
    probability: float,
    max_predictions: int,
    replace_probability: float = 0.85,
    rng: Tensor,
    site: int = 0,
) -> MaskedTokens:
    """As `mask_tokens` without replacement, but that a word's tokens are chosen together, or not at all.

    A sequence's words are put in the order of the selection words (docs/design.md, Random numbers) of their first
    tokens. In this order each is taken if it fits into what is left of ``max(1, round(n · probability))`` tokens, for
    up to four passes after a word that did not fit, which is nearly always all of them: fewer tokens are chosen only
    where no remaining word is short enough, none at all where every word is longer than the budget. Whether a chosen
    token becomes ``mask_id`` is decided for each token alone.

    It is made of plain PyTorch operations on every device, without a kernel of its own or a place in `backends`.

    Args:
        word_starts: bool ``[V]``, True for ids that begin a word. A special token always ends one.
        the rest: as in `mask_tokens`.

    Returns: `MaskedTokens`; positions ascend.

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape, device or value and, on the CPU, too few slots.

    Source: google-research/bert ``create_pretraining_data.py`` (``do_whole_word_mask``).
    """
    op = "mask_words"
    check(op, input_ids, cu_seqlens, special_ids, probability, replace_probability, max_predictions, rng, site)
    checks.check(op, "word_starts", word_starts, checks.BOOL, (None,), input_ids)
    arguments = (input_ids, cu_seqlens, special_ids, word_starts, mask_id, probability, max_predictions)
    return MaskedTokens(*reference.mask_words(*arguments, replace_probability, rng, site))
