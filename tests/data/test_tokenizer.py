"""Tokenizers that users have: every form, special tokens by any name, and what transformers makes of what we save."""

import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from electra_fast.data.tokenizer import Tokenizer, wordpiece
from electra_fast.errors import ConfigError, TokenizerError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "##s", "e", "##le", "##ve", "ele", "ca", "##fe", ".", "京", "都", "м", "##ир"]


def vocabulary(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{entry}\n" for entry in entries).encode())
    return path


@pytest.fixture
def vocab(tmp_path):
    return vocabulary(tmp_path / "vocab.txt", SPECIAL + WORDS)


def tokens(tokenizer, *lines):
    return [[tokenizer.token(i) for i in ids] for ids in tokenizer.encode_lines(lines)]


def test_vocab_txt(vocab):
    tokenizer = Tokenizer.load(vocab)
    assert tokens(tokenizer, "The Cats.", "", "élève") == [["the", "cat", "##s", "."], [], ["ele", "##ve"]]
    assert tokenizer.special_tokens == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 4)
    assert (tokenizer.cls_id, tokenizer.sep_id) == (2, 3)
    assert tokenizer.special_ids == [0, 2, 3, 4]
    assert tokenizer.vocab_size == len(SPECIAL + WORDS)
    assert tokenizer.is_wordpiece


def test_other_scripts(vocab):
    assert tokens(Tokenizer.load(vocab), "京都 Мир") == [["京", "都", "м", "##ир"]]


def test_windows_line_ends(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIAL, "cat", ""]).encode())
    assert Tokenizer.load(path).hash == Tokenizer.load(vocabulary(tmp_path / "b" / "vocab.txt", [*SPECIAL, "cat"])).hash


def test_a_vocabulary_with_a_byte_order_mark(tmp_path, vocab):
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + vocab.read_bytes())
    assert Tokenizer.load(marked).hash == Tokenizer.load(vocab).hash


@pytest.mark.parametrize(
    ("entries", "options", "expected"),
    [
        (["cat", "##s", "ℝ"], {}, ["cat"]),  # no letter that has a lower case: uncased
        (["cat", "Cat"], {}, ["Cat"]),
        (["cat", "Cat"], {"lowercase": True}, ["cat"]),
        (["cat", "##s"], {"lowercase": False}, ["[UNK]"]),
    ],
)
def test_case_of_a_vocabulary(tmp_path, entries, options, expected):
    tokenizer = Tokenizer.load(vocabulary(tmp_path / "v.txt", SPECIAL + entries), **options)
    assert tokens(tokenizer, "Cat") == [expected]


@pytest.mark.parametrize(("strip", "expected"), [(None, "e"), (True, "e"), (False, "é")])
def test_accents(tmp_path, strip, expected):
    path = vocabulary(tmp_path / "v.txt", [*SPECIAL, "e", "é"])
    assert tokens(Tokenizer.load(path, strip_accents=strip), "É") == [[expected]]


def test_special_tokens_in_a_text_are_text(vocab):
    assert 4 not in Tokenizer.load(vocab).encode_lines(["the [MASK] cat"])[0]


@pytest.mark.parametrize("missing", SPECIAL)
def test_a_missing_special_token(tmp_path, missing):
    path = vocabulary(tmp_path / "vocab.txt", [entry for entry in SPECIAL + WORDS if entry != missing])
    with pytest.raises(TokenizerError, match=rf"vocab\.txt has no \{missing[:-1]}\]; ELECTRA needs") as error:
        Tokenizer.load(path)
    assert "\n" not in str(error.value)


def test_a_doubled_entry(tmp_path):
    with pytest.raises(TokenizerError, match=r"line 7: 'cat' is also on line 6"):
        Tokenizer.load(vocabulary(tmp_path / "vocab.txt", [*SPECIAL, "cat", "cat"]))


def test_unreadable_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match="cannot read vocabulary"):
        Tokenizer.load(tmp_path / "vocab.txt")


def test_nothing_there(tmp_path):
    with pytest.raises(TokenizerError, match="does not exist"):
        Tokenizer.load(tmp_path / "vocab.txt")
    with pytest.raises(TokenizerError, match=r"holds neither tokenizer\.json nor vocab\.txt"):
        Tokenizer.load(tmp_path)


def test_directory_with_a_vocabulary(tmp_path, vocab):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "mask_token": "[MASK]"}))
    assert tokens(Tokenizer.load(tmp_path), "The the") == [["[UNK]", "the"]]


def test_damaged_files(tmp_path, vocab):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is damaged"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json is damaged"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("form", ["string", "object", "map", "unnamed"])
def test_a_byte_level_tokenizer_with_names_of_its_own(tmp_path, form):
    names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    backend = Backend(
        models.BPE({**{name: i for i, name in enumerate(names.values())}, "a": 5, "b": 6, "ab": 7}, [("a", "b")])
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {f"{role}_token": {"content": name} if form == "object" else name for role, name in names.items()}
    if form != "unnamed":
        name = "special_tokens_map.json" if form == "map" else "tokenizer_config.json"
        (tmp_path / name).write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_tokens == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert tokenizer.encode_lines(["ab a b ab ab"]) == [[7, 5, 6, 7, 7]]  # neither cut nor padded
    assert not tokenizer.is_wordpiece
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert (again.hash, again.names) == (tokenizer.hash, names)
    assert not (tmp_path / "saved" / "vocab.txt").exists()


def test_options_for_a_tokenizer_that_knows_better(tmp_path, vocab):
    Tokenizer.load(vocab).save(tmp_path / "saved")
    for path in (tmp_path / "saved", tmp_path / "saved" / "tokenizer.json"):
        with pytest.raises(ConfigError, match="says itself whether case and accents are kept"):
            Tokenizer.load(path, lowercase=True)


def test_the_hash_is_that_of_the_rules():
    entries = {entry: index for index, entry in enumerate(SPECIAL + WORDS)}
    hashes = {
        Tokenizer(wordpiece(entries, lowercase=lower, strip_accents=strip)).hash
        for lower in (True, False)
        for strip in (True, False)
    }
    assert len(hashes) == 4
    swapped = {**entries, "the": entries["cat"], "cat": entries["the"]}
    assert Tokenizer(wordpiece(swapped, lowercase=True, strip_accents=True)).hash not in hashes


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_saved_and_loaded_is_the_same(tmp_path, lowercase, strip_accents):
    entries = {entry: index for index, entry in enumerate([*SPECIAL, *WORDS, "The", "élè", "##ve"])}
    tokenizer = Tokenizer(
        wordpiece({t: i for i, t in enumerate(entries)}, lowercase=lowercase, strip_accents=strip_accents)
    )
    tokenizer.save(tmp_path)
    lines = ["The cats.", "élève the café", "京都 мир"]
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.load(path)
        assert again.hash == tokenizer.hash
        assert again.encode_lines(lines) == tokenizer.encode_lines(lines)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:5] == SPECIAL

    transformers = pytest.importorskip("transformers", reason="needs the optional package transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(lines, add_special_tokens=False)["input_ids"] == tokenizer.encode_lines(lines)
    assert theirs.mask_token_id == tokenizer.mask_id
    pair = theirs("the", "cats")
    assert pair["input_ids"] == [2, *tokenizer.encode_lines(["the"])[0], 3, *tokenizer.encode_lines(["cats"])[0], 3]
    assert theirs.model_max_length == 512


def test_a_vocabulary_with_gaps_has_no_lines_for_ids(tmp_path):
    """In a vocab.txt the number of a line is an id: without id 5 all that follow would be one too low."""
    entries = {**{token: index for index, token in enumerate(SPECIAL)}, "cat": 6, "##s": 7}
    tokenizer = Tokenizer(wordpiece(entries, lowercase=True, strip_accents=None))
    tokenizer.save(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()
    again = Tokenizer.load(tmp_path)
    assert (again.encode_lines(["Cats"]), again.vocab_size) == ([[6, 7]], 8)
    transformers = pytest.importorskip("transformers", reason="needs the optional package transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Cats")["input_ids"] == [2, 6, 7, 3]
    assert theirs.mask_token_id == 4


def test_the_longest_sequence_is_the_callers(tmp_path, vocab):
    Tokenizer.load(vocab).save(tmp_path / "saved", model_max_length=128)
    transformers = pytest.importorskip("transformers", reason="needs the optional package transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.model_max_length == 128
    assert len(theirs("the cat " * 100, truncation=True)["input_ids"]) == 128


def test_wordpiece_with_other_rules_is_saved_as_it_is(tmp_path, vocab):
    tokenizer = Tokenizer.load(vocab)
    tokenizer.backend.normalizer = normalizers.Lowercase()
    tokenizer.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "do_lower_case" not in config


def test_text_of_ids(vocab):
    tokenizer = Tokenizer.load(vocab)
    assert tokenizer.decode([2, 5, 6, 7, 3], skip_special_tokens=True) == "the cats"
    with pytest.raises(TokenizerError, match="token id 99 is not in the vocabulary of 19 entries"):
        tokenizer.token(99)
