"""The target's tokenizer: what goes in comes out, in any script, and the same text gives the same bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.data.target_tokenizer import SMALLEST, train_target_tokenizer
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import ConfigError, DataError

TEXTS = [
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "„Wie spät ist es?“, fragte sie (um 7:30 Uhr).",
    "一个戴橙色帽子的男人。",
] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_target_tokenizer(TEXTS, 700)


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)))
def test_what_goes_in_comes_out(tokenizer, text):
    text = unicodedata.normalize("NFC", text).strip(" ").replace("▁", "_")
    ids = tokenizer.encode_lines([text])[0]
    assert tokenizer.decode([*ids, tokenizer.sep_id], skip_special_tokens=True) == text
    assert tokenizer.unk_id not in ids


def test_what_is_frequent_is_one_piece(tokenizer):
    assert tokenizer.special_tokens == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert "▁Ein" in tokenizer.backend.get_vocab()
    assert tokenizer.vocab_size <= 700


def test_the_vocabulary_ends_where_it_is_told_to():
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 600)]
    small = train_target_tokenizer(["".join(characters)] * 2, SMALLEST)
    assert small.vocab_size <= SMALLEST
    assert small.decode(small.encode_lines(["丁丂一"])[0]) == "丁丂一"


def test_transformers_reads_what_is_saved(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs(TEXTS[1])["input_ids"]
    assert ids == [tokenizer.cls_id, *tokenizer.encode_lines(TEXTS[1:2])[0], tokenizer.sep_id]
    assert theirs.decode(ids, skip_special_tokens=True) == TEXTS[1]


def test_another_process_makes_the_same(tokenizer):
    program = (
        "import hashlib, sys\n"
        "from electra_fast.data.target_tokenizer import train_target_tokenizer\n"
        f"made = train_target_tokenizer({TEXTS!r}, 700)\n"
        "print(hashlib.sha256(made.backend.to_str().encode()).hexdigest())"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert made == hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(ConfigError, match=f"target_vocab_size must be at least {SMALLEST}, got 100"):
        train_target_tokenizer(TEXTS, 100)
    with pytest.raises(DataError, match="nothing to train a tokenizer on"):
        train_target_tokenizer(["", " "], SMALLEST)
