"""The tokenizer of a translation's target: what is written has to come out as people write it, with spaces and case.

BERT's WordPiece, which ELECTRA reads, forgets where spaces stood. Here they are part of the pieces ("▁"), and a
character outside the vocabulary is spelt in bytes, so that ``decode(encode(text)) == text`` for every text in NFC that
has no spaces at its ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from electra_fast.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from electra_fast.errors import ConfigError, DataError

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_FIXED = len(SPECIAL_TOKENS) + len(_BYTES)
SMALLEST = 2 * _FIXED


def train_target_tokenizer(texts: Sequence[str], vocab_size: int, *, min_frequency: int = 2) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al. 2016) of words with the space before them; equal texts give equal bytes.

    Ids: [PAD] [UNK] [CLS] [SEP] [MASK] = 0…4; the 256 bytes; the most frequent characters, at most half of
    what is left; merges, the most frequent first.

    Args:
        vocab_size: entries at most; little text gives fewer.
        min_frequency: how often a character or a pair must occur to become an entry.

    Raises:
        ConfigError: vocab_size is too small. DataError: there is nothing to train on.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(f"target_vocab_size must be at least {SMALLEST}, got {vocab_size}")
    kept = _alphabet(texts, (vocab_size - _FIXED) // 2, min_frequency)
    if not kept:
        raise DataError("the translations of the training data hold no text: there is nothing to train a tokenizer on")
    backend = _pipeline(models.BPE(byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"]))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS.values(), *_BYTES],
        show_progress=False,
    )
    backend.train_from_iterator(_lines(texts, kept), trainer)
    # A fresh tokenizer: in the trained one the bytes are special tokens, which decoding leaves out.
    learned = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned["merges"]]
    model = models.BPE(learned["vocab"], merges, byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"])
    fresh = _pipeline(model)
    fresh.add_special_tokens(list(SPECIAL_TOKENS.values()))
    return Tokenizer(fresh)


def _pipeline(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return backend


def _alphabet(texts: Iterable[str], most: int, min_frequency: int) -> frozenset[str]:
    """The characters that get entries of their own; the trainer would take all."""
    counts: Counter[str] = Counter()
    normalize = normalizers.NFC().normalize_str
    for text in texts:
        counts.update(normalize(text))
    frequent = [c for c, count in counts.items() if count >= min_frequency and not c.isspace()]
    return frozenset(sorted(frequent, key=lambda c: (-counts[c], c))[:most])


def _lines(texts: Iterable[str], kept: frozenset[str]) -> Iterator[str]:
    """Texts with a space for every other character."""
    normalize = normalizers.NFC().normalize_str
    for text in texts:
        yield "".join(c if c in kept else " " for c in normalize(text))
