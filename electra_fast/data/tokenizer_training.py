"""Training a WordPiece vocabulary on the user's own text, in any language, so that the same text gives the same bytes.

The trainer of the ``tokenizers`` library numbers the characters it meets inside words in the order of a randomly keyed
hash table, so two runs differ. It is deterministic once every single character, at the beginning and inside of a word,
has its number beforehand: merges are then chosen by count and, on a tie, by those numbers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
from tokenizers import trainers

from electra_fast.data.tokenizer import SPECIAL_TOKENS, Tokenizer, wordpiece
from electra_fast.errors import ConfigError, CorpusError

# The tokenizer takes a word of more than 100 characters for unknown, and the trainer is slow on them.
# Chinese characters are words of their own.
_ENDLESS_WORD = re.compile(
    r"[^\W_\u2e80-\u2fdf\u3400-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff]{101,}"
)
_SMALLEST_VOCABULARY = 64
_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class TokenizerOptions:
    """How a vocabulary is trained.

    Attributes:
        vocab_size: entries at most, special tokens included; little text gives fewer.
        lowercase: whether text is lower-cased.
        strip_accents: whether accents are removed; None: as ``lowercase``, BERT's rule.
        min_frequency: how often a character or pair must occur to become an entry.
        sample_characters: most characters to train on; more text is thinned out evenly.
    """

    vocab_size: int = 30522
    lowercase: bool = True
    strip_accents: bool | None = None
    min_frequency: int = 2
    sample_characters: int = 200_000_000

    def __post_init__(self) -> None:
        if self.vocab_size < _SMALLEST_VOCABULARY:
            raise ConfigError(f"vocab_size: expected at least {_SMALLEST_VOCABULARY}, got {self.vocab_size}")
        if self.min_frequency < 1:
            raise ConfigError(f"min_frequency: expected at least 1, got {self.min_frequency}")
        if self.sample_characters < 1:
            raise ConfigError(f"sample_characters: expected at least 1, got {self.sample_characters}")


def train_tokenizer(texts: Sequence[str], options: TokenizerOptions) -> Tokenizer:
    """Train a WordPiece on texts (lines separated by ``\\n``).

    Ids: [PAD] [UNK] [CLS] [SEP] [MASK] = 0…4; then characters by code point; then the same inside a word (``##x``);
    then merges, the most frequent first. The most frequent characters are kept, at most a quarter of the vocabulary.

    Raises:
        CorpusError: there is nothing to train on.
    """
    backend = wordpiece({SPECIAL_TOKENS["unk"]: 0}, lowercase=options.lowercase, strip_accents=options.strip_accents)
    characters = _alphabet(texts, backend, options)
    if not characters:
        raise CorpusError(
            f"no character occurs {options.min_frequency} times in the text: too little to train a tokenizer on"
        )
    inside = [f"##{character}" for character in characters if _stays_inside_word(character, backend)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.vocab_size,
        min_frequency=options.min_frequency,
        special_tokens=[*SPECIAL_TOKENS.values(), *characters, *inside],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    backend.train_from_iterator(_lines(texts), trainer)
    # A fresh tokenizer: in the trained one every single character is a special token, to be found inside any word.
    vocabulary = backend.get_vocab(with_added_tokens=False)
    return Tokenizer(wordpiece(vocabulary, lowercase=options.lowercase, strip_accents=options.strip_accents))


def thin_out(texts: Iterable[str], limit: int) -> list[str]:
    """A sample of texts, spread evenly over a stream of unknown length, that holds at most ``limit`` characters.

    Up to the limit all are taken; beyond, those whose number hashes to a multiple of a power of two, the smallest
    that is enough.
    """
    kept: list[tuple[int, str]] = []
    held = 0
    stride = 1
    for index, text in enumerate(texts):
        key = zlib.crc32(index.to_bytes(8, "little"))
        if key % stride:
            continue
        kept.append((key, text))
        held += len(text)
        while held > limit and len(kept) > 1:
            stride *= 2
            thinned = [(key, text) for key, text in kept if key % stride == 0]
            kept = thinned or kept[:1]
            held = sum(len(text) for _, text in kept)
    return [text for _, text in kept]


def _lines(texts: Iterable[str]) -> Iterator[list[str]]:
    for text in texts:
        yield [_ENDLESS_WORD.sub(" ", line) for line in text.split("\n") if line]


def _alphabet(texts: Sequence[str], backend: tokenizers.Tokenizer, options: TokenizerOptions) -> list[str]:
    """The characters to keep, by code point, as they are after normalisation."""
    raw = np.zeros(_CODE_POINTS, np.int64)
    for text in texts:
        raw += np.bincount(np.frombuffer(text.encode("utf-32-le"), "<u4"), minlength=_CODE_POINTS)
    counts: dict[str, int] = {}
    for code in np.flatnonzero(raw).tolist():
        for character in backend.normalizer.normalize_str(chr(code)):
            if not character.isspace():
                counts[character] = counts.get(character, 0) + int(raw[code])
    frequent = [character for character, count in counts.items() if count >= options.min_frequency]
    frequent.sort(key=lambda character: (-counts[character], character))
    return sorted(frequent[: options.vocab_size // 4])


def _stays_inside_word(character: str, backend: tokenizers.Tokenizer) -> bool:
    """Whether a character can be inside a word; punctuation and Chinese characters are always words of their own."""
    normalized = backend.normalizer.normalize_str(f"a{character}a")
    return len(backend.pre_tokenizer.pre_tokenize_str(normalized)) == 1
