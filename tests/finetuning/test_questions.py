"""Question answering: windows over contexts, where answers are, and when there is none."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the optional package transformers")

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import DataError
from electra_fast.workflows.finetuning import FinetuneOptions
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer, resolve
from electra_fast.workflows.finetuning.tasks.questions import QuestionAnswering

CONTEXT = "The film was long, and the ACTOR was very «good» at the end. " * 3


@pytest.fixture
def tokenizer(checkpoint):
    return load_tokenizer(resolve(checkpoint))


def example(answer=None, question="the actor was", context=CONTEXT):
    """Columns of one question; its answer is the last of these words in the context."""
    answers = (
        {"text": [answer], "answer_start": [context.rindex(answer)]} if answer else {"text": [], "answer_start": []}
    )
    return {"question": [question], "context": [context], "answers": [answers]}


def certain(rows, span, null=-9.0):
    """Logits of a model that is sure that the characters of ``span`` are the answer, where they are in the window."""
    outputs = []
    for ids, first, starts, ends in zip(rows["input_ids"], rows["first"], rows["starts"], rows["ends"], strict=True):
        logits = np.full((2, len(ids)), -10.0, np.float32)
        logits[:, 0] = null / 2
        for which, places in enumerate((starts, ends)):
            if span is not None and span[which] in places:
                logits[which, first + places.index(span[which])] = 6.0
        outputs.append(logits)
    return outputs


@pytest.mark.parametrize("answer", ["film", "ACTOR was very «good»", "The film was long", ".", "oo"])
def test_every_window_with_the_answer_points_to_it(tokenizer, answer):
    task = QuestionAnswering(max_length=32, overlap=8)
    examples = example(answer)
    begin = CONTEXT.rindex(answer)
    rows = task.features(examples, tokenizer, training=True)
    places = task.features(examples, tokenizer, training=False)
    assert len(rows["example"]) > 2
    pointed = 0
    for row in range(len(rows["example"])):
        start, end = rows["start_positions"][row], rows["end_positions"][row]
        assert len(rows["input_ids"][row]) <= 32
        if (start, end) == (0, 0):
            continue
        pointed += 1
        first, starts, ends = (places[name][row] for name in ("first", "starts", "ends"))
        assert starts[start - first] <= begin < ends[start - first]
        assert starts[end - first] < begin + len(answer) <= ends[end - first]
    assert pointed


def test_rows_are_questions_and_windows(tokenizer):
    task = QuestionAnswering(max_length=16, overlap=4, max_question=2)
    rows = task.features(example(context="a film with a very good actor end"), tokenizer, training=False)
    ids = [tokenizer.convert_ids_to_tokens(row) for row in rows["input_ids"]]
    assert ids == [["[CLS]", "the", "actor", "[SEP]", *"a film with a very good actor end".split(), "[SEP]"]]
    assert rows["token_type_ids"] == [[0] * 4 + [1] * 9]
    assert rows["cut"] == [True]


@pytest.mark.parametrize("answer", ["film", "very «good»", "end"])
def test_an_answer_is_characters_of_the_context(tokenizer, answer):
    task = QuestionAnswering(max_length=24, overlap=8)
    begin = CONTEXT.rindex(answer)
    examples = example(answer)
    rows = task.features(examples, tokenizer, training=False)
    (prediction,) = task.decode(certain(rows, (begin, begin + len(answer))), rows, examples)
    assert prediction["answer"] == answer
    assert (prediction["start"], prediction["end"]) == (begin, begin + len(answer))
    assert "no_answer_margin" not in prediction
    assert prediction["n_best"][0]["probability"] == prediction["probability"] > 0.99
    assert sum(entry["probability"] for entry in prediction["n_best"]) == pytest.approx(1)
    for entry in prediction["n_best"]:
        assert CONTEXT[entry["start"] : entry["end"]] == entry["answer"]
    assert task.score([prediction], examples) == {"exact_match": 1.0, "f1": 1.0}


def test_answers_are_no_longer_than_allowed(tokenizer):
    task = QuestionAnswering(max_length=64, max_answer=2)
    examples = example("film")
    rows = task.features(examples, tokenizer, training=False)
    span = (CONTEXT.index("film"), CONTEXT.index("long") + 4)  # three words
    (prediction,) = task.decode(certain(rows, span), rows, examples)
    assert all(len(entry["answer"].split()) <= 2 for entry in prediction["n_best"])


def test_no_answer_is_given_where_it_scores_higher_in_all_windows(tokenizer):
    task = QuestionAnswering(max_length=24, overlap=8, null_threshold=0.0)
    examples = example("film")
    rows = task.features(examples, tokenizer, training=False)
    begin = CONTEXT.rindex("film")
    outputs = certain(rows, (begin, begin + 4), null=14.0)  # 2 more than the answer's 12
    (prediction,) = task.decode(outputs, rows, examples)
    assert (prediction["answer"], prediction["start"], prediction["end"]) == ("", None, None)
    assert prediction["no_answer_margin"] == pytest.approx(2)
    assert prediction["n_best"][0]["answer"] == "film"
    assert prediction["probability"] + sum(e["probability"] for e in prediction["n_best"]) == pytest.approx(1)
    outputs[-1][:, 0] = 4.0  # of the windows' scores the lowest counts
    (prediction,) = task.decode(outputs, rows, examples)
    assert prediction["no_answer_margin"] == pytest.approx(8 - 12)
    assert prediction["answer"] == "film"


def test_a_context_of_which_the_tokenizer_leaves_nothing_has_no_answer(tokenizer):
    for threshold in (None, 0.0):
        task = QuestionAnswering(max_length=24, null_threshold=threshold)
        examples = {"question": ["the"], "context": ["\u200b"]}
        rows = task.features(examples, tokenizer, training=False)
        (prediction,) = task.decode(certain(rows, None), rows, examples)
        assert (prediction["answer"], prediction["n_best"]) == ("", [])
        json.dumps(prediction, allow_nan=False)


def test_questions_without_answer_change_what_is_learned():
    task = QuestionAnswering(max_length=24)
    answered, not_answered = example("film"), example()
    assert task.learn(answered).null_threshold is None
    assert task.learn(not_answered).null_threshold == 0.0


def prediction(answer, margin):
    n_best = [{"answer": answer, "start": 0, "end": 1, "probability": 0.5}]
    return {"answer": "" if margin > 0 else answer, "no_answer_margin": margin, "n_best": n_best}


GOLD = {"answers": [{"text": ["red car"]}, {"text": ["blue"]}, {"text": []}, {"text": []}]}


def test_the_threshold_is_settled_on_held_out_questions():
    task = QuestionAnswering(max_length=24, null_threshold=0.0)
    predictions = [prediction("red", 1.0), prediction("blue", 2.0), prediction("x", 4.0), prediction("y", -1.0)]
    settled = task.settle(predictions, GOLD)
    assert settled.null_threshold == 3.0
    scores = task.score(predictions, GOLD)
    assert scores == {
        "exact_match": 0.25,
        "has_answer_exact_match": 0.0,
        "no_answer_exact_match": 0.5,
        "best_exact_match": 0.5,
        "f1": 0.25,
        "has_answer_f1": 0.0,
        "no_answer_f1": 0.5,
        "best_f1": pytest.approx((2 / 3 + 1 + 1) / 4),
    }
    assert settled.score(predictions, GOLD)["f1"] == pytest.approx(scores["best_f1"])
    assert QuestionAnswering(max_length=24).settle([], {}) == QuestionAnswering(max_length=24)


def test_options_fit_short_models():
    task = QuestionAnswering.from_options(FinetuneOptions(task="qa", doc_stride=99), 40)
    assert (task.max_length, task.overlap, task.max_question) == (40, 99, 18)
    assert QuestionAnswering.from_options(FinetuneOptions(task="qa"), 512).max_length == 384
    assert QuestionAnswering.from_state(json.loads(json.dumps(task.state()))) == task


def test_texts_stay_as_they_are_and_repeated_questions_are_counted(tmp_path):
    line = json.dumps(
        {"question": "the\u0301 a", "context": "a\tfilm", "answers": {"text": ["film"], "answer_start": [2]}}
    )
    path = tmp_path / "x.jsonl"
    path.write_text(f"{line}\n{line}\n")
    task = QuestionAnswering(max_length=24)
    cleaned, report = task.clean(task.read(path), HygienePolicy(duplicates="drop"))
    assert cleaned[:] == {
        "id": ["1"],
        "question": ["the\u0301 a"],
        "context": ["a\tfilm"],
        "answers": [{"text": ["film"], "answer_start": [2]}],
    }
    assert (report.duplicates, report.changed) == (1, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "context": "c"}, "has no column 'answers'"),
        ({"question": "q", "answers": {}}, "has no column 'context'"),
        ({"question": "", "context": "c", "answers": {}}, "row 1: column 'question' must hold a text, got ''"),
        ({"question": "q", "context": "c", "answers": ["c"]}, "row 1: answers must be an object with the lists"),
        (
            {"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": [1]}},
            "row 1: the answer 'c' is not at character 1 of the context: it begins at 0",
        ),
    ],
)
def test_a_broken_table_is_named_with_the_row(tmp_path, row, message):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        QuestionAnswering(max_length=24).read(path)


def test_an_input_needs_question_and_context():
    with pytest.raises(DataError, match="'context'"):
        QuestionAnswering(max_length=24).accept({"question": "q"})
    given = {"question": "q", "context": "c", "id": 3}
    assert QuestionAnswering(max_length=24).accept(given) == {"question": "q", "context": "c"}
    assert QuestionAnswering(max_length=24).accept({"question": "\ud83d?", "context": "c"})["question"] == "\ufffd?"


def test_the_loss_falls_and_answers_are_found(checkpoint, tokenizer):
    one, other = example("film", "was long"), example("end", "good at")
    examples = {name: one[name] + other[name] for name in one}
    task = QuestionAnswering(max_length=40, overlap=8)
    torch.manual_seed(0)
    model = task.model(resolve(checkpoint), dropout=0.0)
    rows = task.features(examples, tokenizer, True)
    batch = task.collate([{name: values[i] for name, values in rows.items()} for i in range(len(rows["cut"]))], 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rows = task.features(examples, tokenizer, False)
    batch = task.collate([{name: values[i] for name, values in rows.items()} for i in range(len(rows["cut"]))], 0)
    with torch.no_grad():
        outputs = task.infer(model.eval(), batch)
    assert [output.shape for output in outputs] == [(2, len(ids)) for ids in rows["input_ids"]]
    assert task.score(task.decode(outputs, rows, examples), examples)["exact_match"] == 1.0
