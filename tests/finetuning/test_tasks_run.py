"""Token classification, question answering and multiple choice from files to predictions, on our kernels."""

import json

import pytest

pytest.importorskip("transformers", reason="needs the optional package transformers")

from electra_fast.workflows.evaluation import load_task
from electra_fast.workflows.finetuning import finetune

STORY = "the good film was very long and the actor with a dull story was great at the end"


def squad(path, count):
    """Questions that name a word; the answer is the word behind it, and there is none where it is not in the text."""
    words = STORY.split()
    questions = []
    for number in range(count):
        at = number % (len(words) - 1)
        there = number % 3 > 0
        start = len(" ".join(words[: at + 1])) + 1
        answers = [{"text": words[at + 1], "answer_start": start}] if there else []
        asked = words[at] if there else "awful"
        questions.append({"id": str(number), "question": asked, "answers": answers, "is_impossible": not there})
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": STORY, "qas": questions}]}]}))
    return path


def test_entities(tiny, tmp_path):
    tags = {"good": "B-x", "film": "I-x", "dull": "B-y", "story": "I-y", "actor": "B-x"}
    train = tmp_path / "train.conll"
    lines = [f"{word} {tags.get(word, 'O')}\n" for word in STORY.split()]
    train.write_text("\n".join("".join(lines[start : start + 9]) for start in range(8)) * 4)
    result = finetune(tiny(task="ner", train=train, dev=train, epochs=6.0))
    assert set(result.summary["figures"]) == {"precision", "recall", "f1", "surface_f1", "accuracy"}
    assert result.summary["figures"]["f1"]["median"] > 0.9
    text = "  A dull story,\nthe actor"
    (prediction,) = load_task(result.output, precision="fp32").predict([text])
    found = [(entity["type"], entity["text"]) for entity in prediction["entities"]]
    assert found == [("y", "dull story"), ("x", "actor")]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in prediction["entities"])


def test_answers_and_the_threshold_for_none(tiny, tmp_path):
    train, dev = squad(tmp_path / "train.json", 48), squad(tmp_path / "dev.json", 15)
    result = finetune(tiny(task="qa", train=train, dev=dev, test=dev, epochs=1.0, max_length=24, doc_stride=6))
    figures = {name: values["median"] for name, values in result.summary["figures"].items()}
    assert figures["f1"] == pytest.approx(figures["best_f1"])  # dev chose the threshold
    assert result.summary["test"]["f1"] == pytest.approx(figures["f1"])  # and it was kept
    predictor = load_task(result.output, precision="fp32")
    assert predictor.task.null_threshold not in (None, 0.0)
    (prediction,) = predictor.predict([{"question": "very", "context": STORY}])
    withheld = prediction["no_answer_margin"] > predictor.task.null_threshold
    assert (prediction["answer"] == "") == withheld
    assert prediction["n_best"][0]["answer"] in STORY


def test_choices(tiny, tmp_path):
    train = tmp_path / "train.jsonl"
    choices = (["very good", "very bad"], ["a long end", "good"], ["bad", "dull", "a good story"])
    rows = [{"context": "the film was", "choices": list(of), "label": label} for label, of in enumerate(choices)]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows * 16))
    result = finetune(tiny(task="choice", train=train, dev=train, epochs=6.0))
    assert result.summary["figures"]["accuracy"]["median"] == 1.0
    predictions = load_task(result.output, precision="fp32").predict([rows[0], rows[2]])
    assert [prediction["choice"] for prediction in predictions] == ["very good", "a good story"]
    assert [len(prediction["probabilities"]) for prediction in predictions] == [2, 3]
