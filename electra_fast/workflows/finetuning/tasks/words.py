"""Words, which are what tags belong to, and the sub-tokens that a model reads instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def whole_characters(text: str) -> str:
    """A text with U+FFFD for each half of a surrogate pair, which JSON can hold and no tokenizer reads."""
    return _HALF_CHARACTER.sub("\ufffd", text)


class Sentence(NamedTuple):
    """Words, and the characters of the text where each begins and ends."""

    words: list[str]
    starts: list[int]
    ends: list[int]


def join_words(words: Sequence[str]) -> Sentence:
    """Given words; their text is made by single spaces between them."""
    starts, ends, at = [], [], 0
    for word in words:
        starts.append(at)
        ends.append(at + len(word))
        at += len(word) + 1
    return Sentence(list(words), starts, ends)


def split_words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Sentence]:
    """The words of texts as the tokenizer splits them before it looks for sub-tokens: at spaces and punctuation."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    sentences = []
    for index, text in enumerate(texts):
        starts: list[int] = []
        ends: list[int] = []
        before = None
        for (start, end), word in zip(encoded["offset_mapping"][index], encoded.word_ids(index), strict=True):
            if word == before:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
            before = word
        words = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        sentences.append(Sentence(words, starts, ends))
    return sentences


def pieces_of(tokenizer: PreTrainedTokenizerBase, sentences: Iterable[Sequence[str]]) -> dict[str, list[int]]:
    """The sub-tokens of every different word, at least one: [UNK] for a word of which the tokenizer leaves nothing."""
    words = list(dict.fromkeys(word for sentence in sentences for word in sentence))
    if not words:
        return {}
    pieces = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    return {word: ids or [tokenizer.unk_token_id] for word, ids in zip(words, pieces, strict=True)}
