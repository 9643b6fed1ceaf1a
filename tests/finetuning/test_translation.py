"""Translation end to end on a language of two sentences: training, its directory, prediction, and what is refused."""

from __future__ import annotations

import json

import pytest

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.data.parallel_text import read_parallel
from electra_fast.errors import ConfigError, DataError
from electra_fast.workflows.evaluation import load_task
from electra_fast.workflows.finetuning import FinetuneOptions, finetune
from electra_fast.workflows.finetuning.recipe import rate_factor, recipe_for
from electra_fast.workflows.finetuning.tasks.translation import Translation

from .conftest import GOOD, TINY, rows, write_jsonl, write_tsv

pytest.importorskip("sacrebleu")
TARGETS = {"good": "Der Film ist schön und gut.", "bad": "Das war „schlecht“, leider!"}
OPTIONS = {
    **TINY,
    "task": "translation",
    "decoder_layers": 1,
    "target_vocab_size": 600,
    "beams": 2,
    "max_length": 32,
    "threads": 1,
}


def pairs(count, seed):
    return [(text, TARGETS[label]) for text, label in rows(count, seed)]


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """The directory of a run on two parallel files."""
    folder = tmp_path_factory.mktemp("translation")
    for name, count, seed in (("train", 160, 0), ("dev", 24, 1), ("test", 24, 2)):
        for side, lines in zip(("en", "de"), zip(*pairs(count, seed), strict=True), strict=True):
            (folder / f"{name}.{side}").write_text("\n".join(lines) + "\n")
    files = {name: f"{folder / name}.en,{folder / name}.de" for name in ("train", "dev", "test")}
    options = FinetuneOptions(
        model=checkpoint, output=folder / "run", **files, **OPTIONS | {"epochs": 6.0, "decoder_learning_rate": 5e-3}
    )
    return finetune(options).output


def test_it_learns(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"] == "bleu"
    assert summary["figures"]["bleu"]["median"] > 70  # one sentence for both would reach about 50
    assert summary["figures"]["chrf"]["median"] > 70
    assert summary["test"]["bleu"] > 70
    assert summary["recipe"]["head_factor"] == pytest.approx(5e-3 / 3e-3)


def test_the_directory_says_everything(run):
    task = json.loads((run / "best" / "task.json").read_text())
    assert task["task"] == "translation"
    bleu, chrf = task["state"]["signatures"]
    assert "tok:13a" in bleu
    assert "nrefs:1" in chrf
    transformers = pytest.importorskip("transformers")
    theirs = transformers.EncoderDecoderModel.from_pretrained(run / "best")
    source = transformers.AutoTokenizer.from_pretrained(run / "best")
    target = transformers.AutoTokenizer.from_pretrained(run / "best" / "target_tokenizer")
    ids = theirs.generate(**source(" ".join(["the film was", *GOOD]), return_tensors="pt", return_token_type_ids=False))
    assert target.decode(ids[0], skip_special_tokens=True) == TARGETS["good"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_predicts(run, precision):
    predictor = load_task(run, precision=precision, device="cpu")
    texts = [" ".join(["the film was", *GOOD]), "the story was dull and awful bad poor", ""]
    found = predictor.predict([texts[0], {"source": texts[1]}, texts[2]])
    assert [entry["translation"] for entry in found[:2]] == list(TARGETS.values())
    assert all(entry["score"] < 0 for entry in found)


def test_int8_is_refused(run):
    with pytest.raises(ConfigError, match="int8 is for transformers' models"):
        load_task(run, precision="int8", device="cpu")


def test_tables_and_published_forms(tmp_path):
    two = [("a b", "c d"), ("e", "")]
    expected = {"source": ["a b", "e"], "target": ["c d", None]}
    tsv = write_tsv(tmp_path / "a.tsv", ("en", "de"), two)
    assert read_parallel(tsv, "en", "de").to_dict() == expected
    write_jsonl(tmp_path / "a.jsonl", [{"source": a, "target": b or None} for a, b in two])
    assert read_parallel(tmp_path / "a.jsonl").to_dict() == expected
    write_jsonl(tmp_path / "b.jsonl", [{"translation": {"en": a, "de": b or None}} for a, b in two])
    assert read_parallel(tmp_path / "b.jsonl", "en", "de").to_dict() == expected
    (tmp_path / "a.en").write_bytes("a\x85b\r\n\u2028e\n".encode())  # line ends alone part lines
    (tmp_path / "a.de").write_text("c\nd\n")
    both = read_parallel(f"{tmp_path}/a.en,{tmp_path}/a.de")
    assert both.to_dict() == {"source": ["a\x85b", "\u2028e"], "target": ["c", "d"]}
    assert read_parallel(tmp_path / "a.en", labelled=False).to_dict() == {"source": ["a\x85b", "\u2028e"]}


def test_files_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "a.en").write_text("a\nb\n")
    (tmp_path / "a.de").write_text("a\n")
    with pytest.raises(DataError, match=r"a\.en has 2 lines and .*a\.de has 1"):
        read_parallel(f"{tmp_path}/a.en,{tmp_path}/a.de")
    with pytest.raises(DataError, match=r"there is no file .*b\.de"):
        read_parallel(f"{tmp_path}/a.en,{tmp_path}/b.de")
    with pytest.raises(DataError, match=r"a\.en has no translations"):
        read_parallel(tmp_path / "a.en")
    tsv = write_tsv(tmp_path / "a.tsv", ("source", "other"), [("a", "b")])
    with pytest.raises(DataError, match="--target-column"):
        read_parallel(tsv)
    write_jsonl(tmp_path / "a.jsonl", [{"source": 3, "target": "x"}])
    with pytest.raises(DataError, match="row 1: column 'source' must hold text, got 3"):
        read_parallel(tmp_path / "a.jsonl")


def test_paths_of_both_files_are_kept_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = FinetuneOptions(task="translation", train="a.en,a.de")
    assert options.train == f"{tmp_path}/a.en,{tmp_path}/a.de"


def test_both_sides_are_cleaned(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", ("source", "target"), [("a\u200b", "c\u0301\u200b"), ("b", ""), ("", "x")])
    task = Translation(max_length=32)
    examples, report = task.clean(task.read(path), HygienePolicy())
    assert examples.to_dict() == {"source": ["a"], "target": ["ć"]}
    assert (report.missing_texts, report.missing_labels) == (1, 1)


def test_what_is_too_long_is_cut_and_counted():
    task = Translation(max_length=8, target_vocab_size=600)
    texts = ["one two", "one two three four five six seven eight nine"]
    from datasets import Dataset

    task = task.learn(Dataset.from_dict({"target": texts}))

    class Split:
        def __init__(self, ids):
            self.overflowing = ids[8:]

    class Words:
        def __call__(self, texts, **_):
            ids = [[1] * (len(text.split()) + 2) for text in texts]
            return type("Encoded", (dict,), {"encodings": list(map(Split, ids))})(input_ids=[row[:8] for row in ids])

    rows = task.features({"source": texts, "target": texts}, Words(), True)
    assert rows["cut"] == [False, True]
    assert [len(row) <= 8 for row in rows["labels"]] == [True, True]
    assert all(row[-1] == task.target.sep_id for row in rows["labels"])


def test_learning_rates_of_encoder_and_decoder():
    options = FinetuneOptions(task="translation")
    recipe = recipe_for(options, 256, 29_000, 12.0)
    names = {
        "decoder.electra.encoder.layer.0.attention.self.query.weight": 1e-3,
        "decoder.electra.embeddings.word_embeddings.weight": 1e-3,
        "encoder.encoder.layer.11.output.dense.weight": 3e-4 * 0.8,
        "encoder.encoder.layer.0.output.dense.weight": 3e-4 * 0.8**12,
        "encoder.embeddings.word_embeddings.weight": 3e-4 * 0.8**13,
    }
    for name, rate in names.items():
        assert recipe.learning_rate * rate_factor(name, 12, recipe) == pytest.approx(rate)
    scratch = recipe_for(FinetuneOptions(task="translation", from_scratch=True), 256, 29_000, 12.0)
    assert {scratch.learning_rate * rate_factor(name, 12, scratch) for name in names} == {1e-3}


def test_transformers_cannot_train_it():
    with pytest.raises(ConfigError, match="backend transformers cannot be for translation"):
        Translation.from_options(FinetuneOptions(task="translation", backend="transformers"), 512)
