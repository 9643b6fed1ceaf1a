"""Classification: what files may look like, the four kinds of problem, and what is refused."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from electra_fast import load_task
from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import ConfigError, DataError
from electra_fast.workflows.finetuning import FinetuneOptions, finetune
from electra_fast.workflows.finetuning.tasks.classification import Classification

from .conftest import BAD, GOOD, rows, sentence, write_jsonl, write_tsv


def task_of(**options):
    return Classification.from_options(FinetuneOptions(**options), 64)


def learned(path, **options):
    """The task after it has read a file."""
    task = task_of(**options)
    examples, _ = task.clean(task.read(path), HygienePolicy())
    return task.learn(examples), examples


def refused(path, message, **options):
    with pytest.raises((DataError, ConfigError)) as caught:
        learned(path, **options)
    assert message in str(caught.value)


def test_columns_are_found_and_may_be_named(tmp_path):
    path = write_tsv(
        tmp_path / "a.tsv", ("id", "premise", "hypothesis", "label"), [(1, "x", "y", "a"), (2, "z", "w", "b")]
    )
    task, examples = learned(path)
    assert examples[:] == {"text": ["x", "z"], "text_pair": ["y", "w"], "label": ["a", "b"]}
    assert task.inputs == ("text", "text_pair")
    task, examples = learned(path, text_column="premise", label_column="hypothesis")
    assert examples[:] == {"text": ["x", "z"], "label": ["y", "w"]}
    assert (task.inputs, task.labels) == (("text",), ("w", "y"))
    refused(path, "has no column 'tekst'", text_column="tekst")
    refused(path, "has no column 'idd': did you mean 'id'", pair_column="idd")


def test_the_kind_of_problem_follows_from_the_labels(tmp_path):
    several = write_jsonl(tmp_path / "m.jsonl", [{"text": "x", "label": ["a", "b"]}, {"text": "y", "label": []}])
    numbers = write_jsonl(tmp_path / "n.jsonl", [{"text": "x", "label": 1.5}, {"text": "y", "label": 3.5}])
    whole = write_jsonl(tmp_path / "w.jsonl", [{"text": t, "label": i % 2} for i, t in enumerate("abcd")])
    assert learned(several)[0].problem == "multi"
    task, _ = learned(numbers)
    assert (task.problem, task.offset, task.scale) == ("regression", 2.5, 1.0)
    task, _ = learned(whole)
    assert (task.problem, task.labels) == ("single", ("0", "1"))
    fields = write_tsv(tmp_path / "f.tsv", ("text", "label"), [("x", "a;b"), ("y", ""), ("z", "b")])
    task, examples = learned(fields, problem="multi", label_separator=";")
    assert (task.labels, list(examples["label"])) == (("a", "b"), [["a", "b"], [], ["b"]])
    assert (
        learned(write_tsv(tmp_path / "g.tsv", ("text", "label"), [("x", "1"), ("y", "2")]), problem="regression")[
            0
        ].offset
        == 1.5
    )


def test_what_is_refused(tmp_path):
    def tsv(lines, header=("text", "label")):
        return write_tsv(tmp_path / "t.tsv", header, lines)

    refused(tsv([("x", "a"), ("y", "a")]), "every row is labelled 'a': there is nothing to learn")
    refused(tsv([("x", "1"), ("y", "1")]), "every row is labelled 1.0", problem="regression")
    refused(
        tsv([("x", "1"), ("y", "two")]), "t.tsv, row 2: the label must be a number, got 'two'", problem="regression"
    )
    refused(tsv([(c, i) for i, c in enumerate("abcde")]), "use --problem regression")
    refused(tsv([("x", "a"), ("y", "b")]), "'c' is not among the labels of the training data", class_weights="c=2")
    refused(tsv([("x", "a"), ("y", "b")]), "class_weights must be balanced or such as", class_weights="a=much")
    refused(tsv([("x", "1"), ("y", "2")]), "are for labels", problem="regression", class_weights="balanced")
    jsonl = write_jsonl(tmp_path / "t.jsonl", [{"text": ["x"], "label": "a"}, {"text": ["y"], "label": "b"}])
    refused(jsonl, "row 1: column 'text' must hold text, got ['x']")
    task, _ = learned(tsv([("x", "good"), ("y", "bad")]))
    with pytest.raises(DataError, match=r"row 1: 'goood' is not among .*: did you mean 'good'"):
        task.read(tsv([("x", "goood")]))


def test_weights_of_labels(tmp_path):
    path = write_tsv(tmp_path / "t.tsv", ("text", "label"), [(c, "a" if c == "v" else "b") for c in "vwxyz"])
    assert learned(path, class_weights="balanced")[0].weights == (2.5, 0.625)
    task, _ = learned(path, class_weights="b=3", label_smoothing=0.1)
    assert task.weights == (1.0, 3.0)

    class Fixed(torch.nn.Module):
        def forward(self, **inputs):
            assert "labels" not in inputs
            return type("Output", (), {"logits": torch.tensor([[1.0, -1.0], [0.5, 0.0]])})

    loss = task.loss(Fixed(), {"labels": torch.tensor([0, 1])})
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.0]]).log_softmax(1)
    weights = torch.tensor([1.0, 3.0])
    plain = -(logits[0, 0] * 1 + logits[1, 1] * 3) * 0.9
    smooth = -(logits * weights).sum() * 0.1 / 2
    assert loss == pytest.approx(float((plain + smooth) / 4))


def test_figures():
    single = Classification(max_length=8, problem="single", labels=("a", "b", "c"))
    found = single.score([{"label": x} for x in "aabc"], {"label": ["a", "b", "b", "c"]})
    assert found["accuracy"] == 0.75
    assert found["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    multi = Classification(max_length=8, problem="multi", labels=("a", "b"))
    found = multi.score([{"labels": ["a"]}, {"labels": []}], {"label": [["a", "b"], []]})
    assert (found["exact_match"], found["f1_micro"]) == (0.5, pytest.approx(2 / 3))
    numbers = Classification(max_length=8, problem="regression")
    found = numbers.score([{"value": x} for x in (1.0, 2.0, 9.0)], {"label": [1.0, 2.0, 3.0]})
    assert (found["spearman"], found["mse"]) == (pytest.approx(1.0), 12.0)
    assert numbers.score([{"value": 1.0}] * 3, {"label": [1.0, 2.0, 3.0]})["spearman"] == 0.0


def test_probabilities():
    single = Classification(max_length=8, problem="single", labels=("a", "b"))
    (found,) = single.decode([np.array([0.0, np.log(3.0)])], {}, {})
    assert (found["label"], found["probability"]) == ("b", pytest.approx(0.75))
    multi = Classification(max_length=8, problem="multi", labels=("a", "b"))
    (found,) = multi.decode([np.array([-np.log(3.0), 2.0])], {}, {})
    assert (found["labels"], found["probabilities"]["a"]) == (["b"], pytest.approx(0.25))


def test_several_labels_end_to_end(tiny, tmp_path):
    draw = random.Random(0)

    def some(count):
        for _ in range(count):
            kinds = draw.choice([[], ["good"], ["bad"], ["good", "bad"]])
            words = [*(GOOD if "good" in kinds else ()), *(BAD if "bad" in kinds else ())] or ["the"]
            yield {"text": " ".join(sentence(draw, words) for _ in range(2)), "label": kinds}

    train, dev = (write_jsonl(tmp_path / f"{name}.jsonl", some(count)) for name, count in (("train", 160), ("dev", 40)))
    result = finetune(tiny(train=train, dev=dev, class_weights="balanced"))
    assert result.summary["metric"] == "f1_micro"
    assert result.summary["figures"]["f1_micro"]["median"] > 0.8
    (found,) = load_task(result.model).predict(["a good and lovely film"])
    assert set(found["probabilities"]) == {"good", "bad"}


def test_numbers_of_pairs_end_to_end(tiny, tmp_path):
    """How many of the two texts are good, times 100."""
    others = random.Random(1).sample(rows(160, 4), 160)
    pairs = zip(rows(160, 3), others, strict=True)
    lines = [(a, b, 100 * ((x == "good") + (y == "good"))) for (a, x), (b, y) in pairs]
    path = write_tsv(tmp_path / "pairs.tsv", ("text", "text_pair", "score"), lines)
    result = finetune(tiny(train=path, dev=None, problem="regression", epochs=6.0))
    assert result.summary["metric"] == "spearman"
    assert result.summary["figures"]["spearman"]["median"] > 0.3
    predictor = load_task(result.model)
    (found,) = predictor.predict([{"text": "the film was good and fine", "text_pair": "a great story"}])
    assert 50 < found["value"] < 250  # in the data's own unit, not in that of the network
    with pytest.raises(DataError, match="needs the text 'text_pair', got None"):
        predictor.predict(["only one text"])


def test_what_comes_of_it_is_a_model_of_transformers(tiny):
    result = finetune(tiny(max_steps=3, epochs=None))
    config = json.loads((result.model / "config.json").read_text())
    assert config["architectures"] == ["ElectraForSequenceClassification"]
    assert config["id2label"] == {"0": "bad", "1": "good"}
    text = "the film was good [SEP] and \u200bfine"
    theirs = pipeline("text-classification", model=str(result.model), device="cpu")(text, top_k=None)
    (ours,) = load_task(result.model, precision="fp32").predict([text])
    assert AutoTokenizer.from_pretrained(result.model)(text)["input_ids"].count(3) == 1
    for entry in theirs:
        assert ours["probabilities"][entry["label"]] == pytest.approx(entry["score"], abs=1e-3)


def test_over_long_rows_are_cut_and_counted(tiny):
    result = finetune(tiny(max_length=8, max_steps=1, epochs=None))
    report = result.summary["hygiene"]["train"]
    assert report["overlong"] > 50
    assert result.summary["training_tokens"] <= 96 * 8
