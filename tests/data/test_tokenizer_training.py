"""Training a WordPiece: the same bytes every time, in any language, whatever the text is like."""

import random
import subprocess
import sys

import pytest

from electra_fast.data.tokenizer_training import TokenizerOptions, thin_out, train_tokenizer
from electra_fast.errors import ConfigError, CorpusError

SENTENCES = [
    "Die Mädchen hören schöne Märchen über Füchse und Störche.",
    "L'élève préférée a déjà été à l'école où elle étudiait.",
    "Девочка читает книгу о маленьком медведе и большой реке.",
    "小さな女の子は本を読みます。京都の川は静かです。",
    "The girl is reading a book about a small bear and a big river, don't you see?",
]


def texts(seed=0, sentences=300):
    """Text with many pairs of equal counts, where the order of a hash table would show."""
    draw = random.Random(seed)
    words = " ".join(SENTENCES).split()
    return ["\n".join(" ".join(draw.choices(words, k=9)) for _ in range(20)) for _ in range(sentences // 20)]


def entries(tokenizer):
    return [tokenizer.token(index) for index in range(tokenizer.vocab_size)]


def test_order_of_the_vocabulary():
    found = entries(train_tokenizer(texts(), TokenizerOptions(vocab_size=200)))
    assert found[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(found) == 200
    single = [entry for entry in found[5:] if len(entry) == 1]
    inside = [entry for entry in found if len(entry) == 3 and entry.startswith("##")]
    assert found[5 : 5 + len(single)] == sorted(single)
    assert found[5 + len(single) : 5 + len(single) + len(inside)] == sorted(inside)
    assert "##." not in inside
    assert "##京" not in inside


def test_training_in_another_process_gives_the_same_vocabulary():
    program = (
        "from electra_fast.data.tokenizer_training import *; import test_tokenizer_training as t;"
        "print(train_tokenizer(t.texts(), TokenizerOptions(vocab_size=200)).hash)"
    )
    path = f"import sys; sys.path.insert(0, {str(__file__).rsplit('/', 1)[0]!r});"
    hashes = {train_tokenizer(texts(), TokenizerOptions(vocab_size=200)).hash for _ in range(4)}
    for parallel in ("true", "false"):
        result = subprocess.run(
            [sys.executable, "-c", path + program],
            capture_output=True,
            text=True,
            check=True,
            env={"TOKENIZERS_PARALLELISM": parallel, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        hashes.add(result.stdout.strip())
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "expected"),
    [
        (True, None, "die madchen"),
        (True, False, "die mädchen"),
        (False, None, "Die Mädchen"),
        (False, True, "Die Madchen"),
    ],
)
def test_case_and_accents(lowercase, strip_accents, expected):
    options = TokenizerOptions(vocab_size=1000, lowercase=lowercase, strip_accents=strip_accents)
    tokenizer = train_tokenizer(texts(), options)
    (ids,) = tokenizer.encode_lines(["Die Mädchen"])
    assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("options", [{}, {"lowercase": False}], ids=["uncased", "cased"])
def test_no_language_is_unknown(sentence, options):
    tokenizer = train_tokenizer(texts(), TokenizerOptions(vocab_size=600, **options))
    (ids,) = tokenizer.encode_lines([sentence])
    assert tokenizer.unk_id not in ids
    text = sentence if options else tokenizer.backend.normalizer.normalize_str(sentence)
    assert "".join(tokenizer.decode(ids).split()) == "".join(text.split())


def test_frequent_characters_come_first_where_there_is_no_room_for_all():
    text = "".join(chr(0x4E00 + i) * (200 - i) for i in range(100))
    found = entries(train_tokenizer([text], TokenizerOptions(vocab_size=64)))
    assert found[5:] == [chr(0x4E00 + i) for i in range(16)]  # a quarter of 64


def test_rare_characters_are_left_out():
    found = entries(train_tokenizer(["aab aab c"], TokenizerOptions(vocab_size=64)))
    assert "a" in found
    assert "c" not in found


def test_little_text_gives_a_small_vocabulary():
    assert train_tokenizer(["ab ab ab"], TokenizerOptions(vocab_size=5000)).vocab_size == 10


def test_endless_words_are_no_burden():
    found = entries(train_tokenizer(["x" * 200_000 + " ab ab " + "京都" * 100], TokenizerOptions(vocab_size=100)))
    assert not any("xx" in entry for entry in found)
    assert {"ab", "京", "都"} <= set(found)


def test_nothing_to_train_on():
    with pytest.raises(CorpusError, match="too little to train a tokenizer on"):
        train_tokenizer(["a b c"], TokenizerOptions())


@pytest.mark.parametrize("name", ["vocab_size", "min_frequency", "sample_characters"])
def test_options_are_checked(name):
    with pytest.raises(ConfigError, match=f"{name}: expected at least"):
        TokenizerOptions(**{name: 0})


def test_a_sample_is_everything_where_there_is_room():
    stream = [f"text {i}" for i in range(100)]
    assert thin_out(stream, 10_000) == stream


def test_a_sample_is_spread_over_the_stream():
    stream = [f"{i:06d}" for i in range(20_000)]
    sample = thin_out(iter(stream), 6 * 1000)
    assert 400 < len(sample) <= 1000
    assert sample == sorted(sample)
    quarters = [sum(i * 5000 <= int(text) < (i + 1) * 5000 for text in sample) for i in range(4)]
    assert min(quarters) > 0.15 * len(sample)


def test_a_sample_of_one_text_that_is_too_long():
    assert thin_out(["x" * 50, "y" * 50, "z" * 50], 10) != []
