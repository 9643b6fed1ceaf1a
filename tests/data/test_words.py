"""Which entries of a vocabulary begin a word, for the kinds of tokenizers there are."""

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from electra_fast.data import Tokenizer
from electra_fast.data.tokenizer import SPECIAL_TOKENS, wordpiece
from electra_fast.data.words import word_starts
from electra_fast.errors import TokenizerError

SPECIAL = list(SPECIAL_TOKENS.values())


def vocabulary(*entries):
    return {token: index for index, token in enumerate([*SPECIAL, *entries])}


def byte_level(*entries):
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary(*entries), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def sentencepiece(*entries):
    scores = [(token, -1.0) for token in vocabulary(*entries)]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return Tokenizer(backend)


def words(*entries):
    return Tokenizer(wordpiece(vocabulary(*entries), lowercase=True, strip_accents=None))


@pytest.mark.parametrize(
    "tokenizer",
    [words("play", "##ing", "!"), byte_level("Ġplay", "ing", "Ġ!"), sentencepiece("▁play", "ing", "▁!")],
    ids=["wordpiece", "byte-level", "sentencepiece"],
)
def test_what_begins_a_word(tokenizer):
    starts = word_starts(tokenizer)
    assert starts.dtype == torch.bool
    assert starts.tolist() == [True] * len(SPECIAL) + [True, False, True]


def test_a_vocabulary_that_does_not_show_it():
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary("a", "b"), merges=[]))
    with pytest.raises(TokenizerError, match=r"does not show where words begin.*--masking token"):
        word_starts(Tokenizer(backend))
