"""Word by word or all at once: the ids are the same, for any text and after the table has started anew."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers

from electra_fast.data import word_cache
from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.data.word_cache import WordCache, works_word_by_word

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abceioABCEσςΣ.,'[]é", "ß", "京", "都", "м", "и", "ع", "ー", "2", "½", "$"]
INSIDE = [f"##{letter}" for letter in LETTERS]
ENTRIES = {entry: index for index, entry in enumerate([*SPECIAL, *LETTERS, *INSIDE, "ab"])}

# What the rules treat in a way of its own: spaces of all kinds, control and zero-width characters, marks, capitals
# whose lower case is longer or depends on the place, full-width and Chinese characters, special tokens.
ODD = list(" \t\n\r\x0b\x0c\x00\x1c\x1f\x85\xa0\u1680\u2003\u2028\u200b\u200d\u3000\ufeff\ufffd\u0301\u0307\u0345")
ODD += list("İΣſﬁ京都Ａ\u212b")
texts = st.text(st.sampled_from([*ODD, *LETTERS, " "]) | st.characters(codec="utf-8"), max_size=40)
texts |= st.lists(st.sampled_from([*SPECIAL, " ", "a", "Ab", "é"]), max_size=6).map("".join)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """A pool of threads for three words is slow where other tests run beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


def backend(lowercase=True, strip_accents=None):
    made = wordpiece(ENTRIES, lowercase=lowercase, strip_accents=strip_accents)
    made.encode_special_tokens = True
    return made


def at_once(made, lines):
    return [encoding.ids for encoding in made.encode_batch_fast(lines, add_special_tokens=False)]


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=4), st.booleans(), st.sampled_from([None, True, False]))
def test_the_ids_are_the_same(lines, lowercase, strip_accents):
    made = backend(lowercase, strip_accents)
    assert works_word_by_word(made)
    assert WordCache(made).encode_lines(lines) == at_once(made, lines)


def test_the_table_starts_anew_when_it_is_full(monkeypatch):
    monkeypatch.setattr(word_cache, "MOST_CHARACTERS", 60)
    made = backend()
    cache = WordCache(made)
    draw = random.Random(0)
    for _ in range(50):
        lines = [" ".join("".join(draw.choices("abcé.", k=draw.randint(0, 6))) for _ in range(8)) for _ in range(3)]
        assert cache.encode_lines(lines) == at_once(made, lines)
        held = sum(map(len, cache._ids))
        assert held == cache._characters
        assert held <= max(60, sum(map(len, set(" ".join(lines).split(" ")))))


def test_a_word_is_encoded_once(monkeypatch):
    made = backend()
    cache = WordCache(made)
    cache.encode_lines(["ab a  b", "a c"])
    monkeypatch.setattr(cache, "_backend", None)
    assert cache.encode_lines(["c b a", ""]) == at_once(made, ["c b a", ""])


def test_only_where_the_rules_allow_it():
    other = backend()
    other.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.BertNormalizer()])
    assert not works_word_by_word(other)
    other = backend()
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert not works_word_by_word(other)
    other = backend()
    other.encode_special_tokens = False
    assert not works_word_by_word(other)


def test_an_added_word_with_a_space_is_still_found():
    made = backend()
    made.add_tokens([AddedToken("ab a", normalized=False)])
    assert not works_word_by_word(made)
    tokenizer = Tokenizer(made)
    assert tokenizer.encode_lines(["ab a"]) == [[len(ENTRIES)]]


@pytest.mark.parametrize("lines", [[], [""], ["   "]])
def test_nothing(lines):
    assert WordCache(backend()).encode_lines(lines) == [[] for _ in lines]
