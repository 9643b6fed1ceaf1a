"""Which entries of a vocabulary begin a word: what whole-word masking needs to know of a tokenizer."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from electra_fast.errors import TokenizerError

from .tokenizer import Tokenizer

SPACES = ("Ġ", "▁")  # how byte-level and SentencePiece vocabularies write the space before a word
_SHARE = 0.01  # of the entries, at least, begin with the space of such a vocabulary


def word_starts(tokenizer: Tokenizer) -> Tensor:
    """bool ``[vocab_size]``: True for entries that begin a word, and for special tokens.

    With a prefix for continuations (WordPiece's ``##``) those are all entries without it; otherwise those with a space
    in front (``Ġ``, ``▁``), so that what is written without one, such as a comma, belongs to the word before it. The
    first token after a special one begins a word in any case (`ops.mask_words`).

    Raises:
        TokenizerError: the entries show neither.
    """
    begins = _rule(tokenizer)
    special = set(tokenizer.special_tokens.values())
    starts = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
    for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        starts[index] = begins(token) or index in special
    return starts


def continuation_prefix(tokenizer: Tokenizer) -> str | None:
    """What marks an entry that goes on with a word; None if the tokenizer marks beginnings instead."""
    return json.loads(tokenizer.backend.to_str())["model"].get("continuing_subword_prefix") or None


def space_of(tokenizer: Tokenizer) -> str | None:
    """How the entries write the space before a word (`SPACES`); None if they do not."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    counts = {space: sum(token.startswith(space) for token in vocabulary) for space in SPACES}
    space = max(counts, key=counts.__getitem__)
    return space if counts[space] >= max(1, _SHARE * len(vocabulary)) else None


def _rule(tokenizer: Tokenizer):
    if (prefix := continuation_prefix(tokenizer)) is not None:
        return lambda token: not token.startswith(prefix)
    if (space := space_of(tokenizer)) is not None:
        return lambda token: token.startswith(space)
    raise TokenizerError(
        "this tokenizer's vocabulary does not show where words begin: its entries have neither a prefix for "
        f"continuations (##) nor a space in front ({', '.join(SPACES)}). Use --masking token"
    )
