"""The hash of a tokenizer: the same in every version of the library, another for other ids."""

import json

import pytest
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from electra_fast.data.tokenizer import SPECIAL_TOKENS, Tokenizer, wordpiece
from electra_fast.data.tokenizer_hash import hash_of_json, tokenizer_hash

VOCABULARY = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), "the", "cat", "##s"])}


def newer(**switches):
    """The library as it may become: its BERT rules have further switches, their defaults given here."""

    def again(text):
        content = json.loads(text)
        Backend.from_str(text)  # what is handed over is a tokenizer to today's library as well
        content["normalizer"] = {**switches, **content["normalizer"]}
        return json.dumps(content)

    return again


def unused(text):
    raise AssertionError("nothing was unknown")


@pytest.mark.parametrize(
    ("lowercase", "expected"),
    [
        (True, "d7db1b2a938ea3d4caf1dc521fc1fab625ce26308824ff6b0c0ea60dcfe5f0f1"),
        (False, "58bc36f918312815d6f130744e575e8e1cd5872809df6db884c4e9ba9475b163"),
    ],
)
def test_corpora_that_were_prepared_before_keep_their_tokenizer(lowercase, expected):
    assert Tokenizer(wordpiece(VOCABULARY, lowercase=lowercase, strip_accents=None)).hash == expected


def test_a_new_switch_counts_only_if_it_is_set():
    tokenizer = Tokenizer(wordpiece(VOCABULARY, lowercase=True, strip_accents=None))
    content = json.loads(tokenizer.backend.to_str())
    content["normalizer"]["fold_width"] = False
    off = hash_of_json(json.dumps(content), tokenizer.names, newer(fold_width=False))
    assert off == tokenizer.hash
    content["normalizer"]["fold_width"] = True
    on = hash_of_json(json.dumps(content), tokenizer.names, newer(fold_width=False))
    assert on != tokenizer.hash


def test_a_new_switch_without_a_default_counts():
    """Whether the library in use knows the switch is up to the library: this one does not bring it back."""
    tokenizer = Tokenizer(wordpiece(VOCABULARY, lowercase=True, strip_accents=None))

    class Newer:
        def to_str(self):
            content = json.loads(tokenizer.backend.to_str())
            content["model"]["fresh"] = 1
            return json.dumps(content)

    assert tokenizer_hash(Newer(), tokenizer.names) != tokenizer.hash


def test_what_the_library_cannot_read_again_counts():
    """A vocabulary of a kind that does not exist yet."""

    class Newer:
        def to_str(self):
            return json.dumps({"model": {"type": "Fresh", "vocab": {}}, "speller": None})

    assert len(tokenizer_hash(Newer(), SPECIAL_TOKENS)) == 64


def test_a_new_part_counts_only_if_it_is_set():
    tokenizer = Tokenizer(wordpiece(VOCABULARY, lowercase=True, strip_accents=None))
    content = json.loads(tokenizer.backend.to_str())
    content["speller"] = None

    def again(text):
        return json.dumps({**json.loads(text), "speller": None})

    assert hash_of_json(json.dumps(content), tokenizer.names, again) == tokenizer.hash
    content["speller"] = {"type": "Speller"}
    assert hash_of_json(json.dumps(content), tokenizer.names, again) != tokenizer.hash


@pytest.mark.parametrize("padding", [None, {"strategy": "BatchLongest"}])
def test_what_decides_no_id_does_not_count(padding):
    tokenizer = Tokenizer(wordpiece(VOCABULARY, lowercase=True, strip_accents=None))
    content = {**json.loads(tokenizer.backend.to_str()), "padding": padding, "decoder": None, "version": "9"}
    assert hash_of_json(json.dumps(content), tokenizer.names, unused) == tokenizer.hash


NORMALIZERS = (
    normalizers.BertNormalizer(lowercase=False), normalizers.Lowercase(), normalizers.NFC(), normalizers.NFD(),
    normalizers.NFKC(), normalizers.NFKD(), normalizers.Nmt(), normalizers.Strip(), normalizers.StripAccents(),
    normalizers.Replace("a", "b"), normalizers.Replace(Regex("a"), "b"), normalizers.Prepend("x"),
    normalizers.ByteLevel(), normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace("c", "d")]),
)  # fmt: skip
PRE_TOKENIZERS = (
    pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(), pre_tokenizers.CharDelimiterSplit("a"),
    pre_tokenizers.Digits(), pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(),
    pre_tokenizers.Split("a", "isolated"), pre_tokenizers.UnicodeScripts(), pre_tokenizers.Whitespace(),
    pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Sequence([pre_tokenizers.Digits(True)]),
)  # fmt: skip
MODELS = (
    models.WordPiece(VOCABULARY, unk_token="[UNK]"), models.WordLevel(VOCABULARY, unk_token="[UNK]"),
    models.BPE(VOCABULARY, []), models.Unigram([(token, 0.0) for token in VOCABULARY], 1),
    models.WordLevel({**VOCABULARY, "type": 8, "normalizers": 9}, unk_token="[UNK]"),
)  # fmt: skip


def test_every_component_is_known_and_counts():
    """All that the library has now is in the table, so that nothing of it is read again, and none is left out."""
    parts = {"normalizer": NORMALIZERS, "pre_tokenizer": PRE_TOKENIZERS, "model": MODELS}
    kinds = [(name, part) for name in parts for part in parts[name]]
    hashes = set()
    for name, part in kinds:
        backend = wordpiece(VOCABULARY, lowercase=True, strip_accents=None)
        setattr(backend, name, part)
        hashes.add(hash_of_json(backend.to_str(), SPECIAL_TOKENS, unused))
    assert len(hashes) == len(kinds) - 1  # the usual pre-tokeniser and the usual model are one tokenizer
