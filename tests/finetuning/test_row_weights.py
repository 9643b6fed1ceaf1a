"""A row's weight is what its loss is multiplied by, whatever the kind of labels."""

import json

import pytest
import torch

from electra_fast.errors import DataError
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer, resolve
from electra_fast.workflows.finetuning.task import task_class

LABELS = {
    "single": ["good", "bad", "good", "bad"],
    "multi": [["good"], [], ["good", "bad"], ["bad"]],
    "regression": [1.0, 0.0, 3.0, 2.0],
}
TEXTS = ["the film was good", "a story", "it was very bad and long", "the end"]


def learned(tiny, tmp_path, problem, weights, **changes):
    objects = [
        {"text": text, "label": label, **({} if weights is None else {"count": weight})}
        for text, label, weight in zip(TEXTS, LABELS[problem], weights or [0] * 4, strict=True)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, objects)))
    task = task_class("classification").from_options(tiny(problem=problem, weight_column="count", **changes), 64)
    examples = task.read(path)
    return task.learn(examples), examples


@pytest.mark.parametrize(
    ("problem", "weighted_labels"),
    [("single", False), ("multi", False), ("regression", False), ("single", True), ("multi", True)],
)
def test_a_weight_multiplies_the_loss(tiny, checkpoint, tmp_path, problem, weighted_labels):
    changes = {"class_weights": "good=3", "label_smoothing": 0.1} if weighted_labels else {}
    weights = [1.0, 0.5, 2.0, 0.25]
    task, examples = learned(tiny, tmp_path, problem, weights, **changes)
    source = resolve(str(checkpoint))
    torch.manual_seed(0)
    model = task.model(source, dropout=0.0).eval()
    rows = task.features(examples[:], load_tokenizer(source), training=True)
    batch = task.collate([{name: values[i] for name, values in rows.items()} for i in range(4)], 0)
    assert batch["weight"].tolist() == weights
    found = task.loss(model, batch)

    singles, scale = [], []
    for i in range(4):
        one = task.collate([{name: values[i] for name, values in rows.items() if name != "weight"}], 0)
        singles.append(task.loss(model, one))
        counts = weighted_labels and problem == "single"
        scale.append(task.weights[task.labels.index(LABELS[problem][i])] if counts else 1.0)
    expected = sum(w * s * loss for w, s, loss in zip(weights, scale, singles, strict=True)) / sum(scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_held_out_data_need_no_weights(tiny, tmp_path):
    task, _ = learned(tiny, tmp_path, "single", [1, 1, 1, 1])
    path = tmp_path / "dev.jsonl"
    path.write_text('{"text": "a", "label": "good"}')
    assert task.read(path).column_names == ["text", "label"]


def test_mistakes(tiny, tmp_path):
    with pytest.raises(DataError, match=r"train.jsonl, row 2: the weight must be a number above 0, got 0"):
        learned(tiny, tmp_path, "single", [1, 0, 1, 1])
    with pytest.raises(DataError, match=r"the training data have no column 'count' \(weight_column\)"):
        learned(tiny, tmp_path, "single", None)


def test_a_sentence_weight_multiplies_the_loss_of_its_tokens(tiny, checkpoint, tmp_path):
    objects = [
        {"tokens": ["the", "film", "was"], "tags": ["O", "B-x", "O"], "count": 0.5},
        {"tokens": ["good"], "tags": ["B-x"], "count": 2.0},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, objects)))
    task = task_class("ner").from_options(tiny(task="ner", weight_column="count"), 64)
    examples = task.read(path)
    task = task.learn(examples)
    source = resolve(str(checkpoint))
    model = task.model(source, dropout=0.0).eval()
    rows = task.features(examples[:], load_tokenizer(source), training=True)

    def loss(indices, weighted):
        names = [name for name in rows if weighted or name != "weight"]
        return task.loss(model, task.collate([{name: rows[name][i] for name in names} for i in indices], 0))

    expected = (0.5 * 3 * loss([0], False) + 2.0 * 1 * loss([1], False)) / 4  # tokens in each
    torch.testing.assert_close(loss([0, 1], True), expected, rtol=1e-5, atol=1e-6)
