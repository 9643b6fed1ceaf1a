"""Encoding text word by word from a table of words seen before: the same ids, several times faster.

Text repeats its words. BERT's rules (clean, lower-case, strip accents, set Chinese characters apart, split at spaces
and punctuation, WordPiece) never look across a space or beside an ASCII punctuation mark, so the ids of a line are
those of its words and marks one after the other, and each word needs to go through the rules only once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

MOST_CHARACTERS = 1 << 21  # of words held, about 100 MB with their ids; then the table starts anew
_WORDS = re.compile(r"[!-/:-@\[-`{-~]|[^ !-/:-@\[-`{-~]+")  # an ASCII punctuation mark, or what is between such


def works_word_by_word(backend: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer's ids of a text are those of its words and punctuation marks one after the other."""
    return (
        isinstance(backend.model, models.WordPiece)
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and backend.encode_special_tokens  # else a special token could be found across a space
        and all(token.special for token in backend.get_added_tokens_decoder().values())
    )


class WordCache:
    """Encodes lines with a tokenizer that `works_word_by_word`; not to be shared between threads."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._ids: dict[str, list[int]] = {}
        self._characters = 0

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """Token ids of every line, without special tokens."""
        split = list(map(_WORDS.findall, lines))
        self._learn(set(chain.from_iterable(split)))
        ids = self._ids.__getitem__
        return [list(chain.from_iterable(map(ids, words))) for words in split]

    def _learn(self, words: set[str]) -> None:
        new = words.difference(self._ids)
        self._characters += sum(map(len, new))
        if self._characters > MOST_CHARACTERS:
            self._ids.clear()
            new = words
            self._characters = sum(map(len, new))
        if new:
            listed = list(new)
            for word, encoding in zip(
                listed, self._backend.encode_batch_fast(listed, add_special_tokens=False), strict=True
            ):
                self._ids[word] = encoding.ids
