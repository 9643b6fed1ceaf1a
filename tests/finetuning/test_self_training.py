"""Self-training on tiny networks: rounds, stopping, resuming, and what is done with the data."""

import dataclasses
import json

import pytest

from electra_fast.errors import ConfigError, DataError
from electra_fast.workflows.evaluation import load_task
from electra_fast.workflows.finetuning import outcome
from electra_fast.workflows.self_training import SelfTrainOptions, run, selftrain


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch):
    monkeypatch.setattr(outcome, "draw_curves", lambda *_: True)


@pytest.fixture
def options(tiny):
    return tiny("out", epochs=3.0)


@pytest.fixture
def truth(labelled_rows):
    """80 texts with their labels."""
    return dict(labelled_rows(80, 7))


@pytest.fixture
def texts(truth, tmp_path):
    """A file of them; its labels are not to be looked at but for counting."""
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(map("\t".join, [("sentence", "label"), *truth.items()])) + "\n")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rounds(options, texts, truth, capsys):
    result = selftrain(options, SelfTrainOptions(unlabelled=texts, rounds=1, confidence=0.6, pseudo_weight=0.5))
    assert len(result.rounds) == 2
    first, second = result.rounds
    assert (first["labelled"], first["taken"]) == (96, 0)
    pseudo = read(options.output_path / "round-1" / "pseudo.jsonl")
    assert second["taken"] == len(pseudo) == sum(second["taken_by_label"].values()) > 10
    assert all(row["confidence"] >= 0.6 and row["label"] in ("good", "bad") for row in pseudo)
    assert second["right"] == pytest.approx(sum(truth[row["text"]] == row["label"] for row in pseudo) / len(pseudo))
    train = read(options.output_path / "round-1" / "train.jsonl")
    assert [row["weight"] for row in train] == [1.0] * 96 + [0.5] * len(pseudo)
    assert json.loads((options.output_path / "summary.json").read_text())["rounds"] == result.rounds
    assert result.best == max((0, 1), key=lambda number: (result.rounds[number]["value"], -number))
    assert f"{len(pseudo)} of {len(truth)} texts are taken" in capsys.readouterr().err
    assert load_task(result.model).predict(["the film was good and lovely"])[0].keys() >= {"label", "probability"}
    state = json.loads((result.model / "task.json").read_text())["state"]
    assert state["weight_column"] is None


def test_an_interrupted_round_goes_on(options, texts, monkeypatch):
    training = SelfTrainOptions(unlabelled=texts, rounds=1, confidence=0.5)
    whole = selftrain(dataclasses.replace(options, output=f"{options.output}-whole"), training)
    from electra_fast.workflows import finetuning

    taken, calls = finetuning.finetune, []

    def interrupted(*args, **kwargs):
        calls.append(args[0].output)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return taken(*args, **kwargs)

    monkeypatch.setattr(finetuning, "finetune", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        selftrain(options, training)
    result = selftrain(options, training)
    assert [path.split("/")[-2] for path in calls] == ["round-0", "round-1", "round-1"]
    assert result.rounds == whole.rounds
    with pytest.raises(ConfigError, match=r"holds self-training with confidence = 0.5, now it is 0.7"):
        selftrain(options, dataclasses.replace(training, confidence=0.7))


def test_sentences_are_tagged(tiny, tmp_path, labelled_rows):
    """Raw text is split into words as the model reads it, and learned with the tags that it was given."""
    for name, seed in (("train", 0), ("dev", 1)):
        words = [text.split() for text, _ in labelled_rows(24, seed)]
        tags = [["B-x" if word == "film" else "O" for word in sentence] for sentence in words]
        rows = [{"tokens": one, "tags": other} for one, other in zip(words, tags, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "texts.txt").write_text("the film was good, and long.\n\na bad end\n")
    files = {"train": tmp_path / "train.jsonl", "dev": tmp_path / "dev.jsonl"}
    training = SelfTrainOptions(unlabelled=tmp_path / "texts.txt", rounds=1, confidence=0.0)
    result = selftrain(tiny("out", task="ner", epochs=1.0, **files), training)
    assert result.rounds[1]["taken"] == 2
    pseudo = read(result.output / "round-1" / "pseudo.jsonl")
    assert [row["tokens"] for row in pseudo] == [
        ["the", "film", "was", "good", ",", "and", "long", "."],
        ["a", "bad", "end"],
    ]
    assert all(len(row["tags"]) == len(row["tokens"]) and set(row["tags"]) <= {"O", "B-x", "I-x"} for row in pseudo)
    assert [row["weight"] for row in read(result.output / "round-1" / "train.jsonl")] == [1.0] * 26


def rounds_of(values, options, texts, monkeypatch):
    """The result where every round has a given figure."""

    def round_(output, number, data, *_):
        return {"round": number, "labelled": 1, "taken": number, "value": values[number]}, None

    monkeypatch.setattr(run, "_round", round_)
    monkeypatch.setattr(run, "_publish", lambda *_: None)
    return selftrain(options, SelfTrainOptions(unlabelled=texts, rounds=len(values) - 1))


def test_a_worse_round_is_the_last(options, texts, monkeypatch):
    result = rounds_of([0.6, 0.7, 0.7, 0.65, 0.9], options, texts, monkeypatch)
    assert [record["value"] for record in result.rounds] == [0.6, 0.7, 0.7, 0.65]
    assert result.best == 1  # the first of equal ones


def test_nothing_taken_ends_it(options, texts):
    result = selftrain(options, SelfTrainOptions(unlabelled=texts, rounds=2, confidence=1.0))
    assert [record["round"] for record in result.rounds] == [0]
    assert (result.model / "model.safetensors").exists()


def test_known_texts_are_left_out(options, labelled_rows, tmp_path, capsys, monkeypatch):
    labelled = [text for text, _ in labelled_rows(96, 0)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*labelled[:5], "a new one", "a new one", "", "another"]) + "\n")
    seen = []
    monkeypatch.setattr(run, "_round", lambda output, number, data, *_: (seen.append(data), (None, None))[1])
    selftrain(options, SelfTrainOptions(unlabelled=path))
    assert list(seen[0].unlabelled["text"]) == ["a new one", "another"]
    assert "unlabelled: 6 texts left out: there before, or among the labelled" in capsys.readouterr().err
    path.write_text("\n".join(labelled[:5]))
    with pytest.raises(DataError, match=r"texts.txt has no text that is not among the \d+ labelled ones"):
        selftrain(dataclasses.replace(options, output=f"{options.output}2"), SelfTrainOptions(unlabelled=path))


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("qa", {}, "self-training labels classification and ner, got task 'qa'"),
        ("ner", {"balanced": True}, "balanced is for classification"),
        ("classification", {"confidence": 1.2}, "confidence must be from 0 to 1, got 1.2"),
        ("classification", {"pseudo_weight": 0.0}, "pseudo_weight must be above 0 and at most 1, got 0.0"),
        ("classification", {"rounds": 0}, "rounds must be at least 1, got 0"),
        ("classification", {"unlabelled": "nowhere.txt"}, "unlabelled: there is no file nowhere.txt"),
        ("classification", {"unlabelled": None}, "unlabelled is missing"),
    ],
)
def test_mistakes(tiny, texts, task, changes, said):
    with pytest.raises(ConfigError, match=said):
        selftrain(tiny("out", task=task), SelfTrainOptions(**{"unlabelled": texts} | changes))
