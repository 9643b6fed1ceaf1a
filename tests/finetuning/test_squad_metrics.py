"""Exact match, F1 and the threshold for no answer, against known values, torchmetrics and brute force."""

import random

import numpy as np
import pytest

from electra_fast.workflows.finetuning.tasks.squad_metrics import (
    answer_f1,
    best_threshold,
    exact_match,
    normalize_answer,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat's-paw, an A.", "catspaw"),
        ("theatre and another", "theatre and another"),
        ("\tÉcole – 1,000 %\n", "école – 1000"),
        ("the a an", ""),
        ("a_b the_c", "ab thec"),
    ],
)
def test_case_punctuation_articles_and_spaces_do_not_count(text, expected):
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("the Nile", ["Nile", "river Nile"], 1, 1),
        ("blue Nile", ["Nile", "the blue river"], 0, 2 / 3),
        ("red red", ["red blue red red"], 0, 2 / 3),
        ("red", ["blue"], 0, 0),
        ("", [], 1, 1),  # no answer, rightly
        ("red", [], 0, 0),
        ("", ["red"], 0, 0),
        ("red", ["the", "red"], 1, 1),  # of "the" nothing is left
        ("", ["the"], 1, 1),
    ],
)
def test_known_answers(answer, gold, exact, f1):
    assert exact_match(answer, gold) == exact
    assert answer_f1(answer, gold) == pytest.approx(f1)


def test_equals_torchmetrics_on_random_answers():
    squad = pytest.importorskip("torchmetrics.text", reason="compares with torchmetrics").SQuAD
    draw = random.Random(0)
    words = "the a red Red, blue-ish (sea) sea 12 1,2 an".split()

    def text(least):
        return " ".join(["x", *(draw.choice(words) for _ in range(draw.randint(least, 5)))])

    answers = [text(0) for _ in range(200)]
    gold = [[text(1) for _ in range(draw.randint(1, 3))] for _ in answers]
    metric = squad()
    metric.update(
        [{"id": str(i), "prediction_text": answer} for i, answer in enumerate(answers)],
        [{"id": str(i), "answers": {"text": texts, "answer_start": [0] * len(texts)}} for i, texts in enumerate(gold)],
    )
    expected = metric.compute()
    pairs = list(zip(answers, gold, strict=True))
    assert 100 * np.mean([exact_match(*pair) for pair in pairs]) == pytest.approx(expected["exact_match"].item())
    assert 100 * np.mean([answer_f1(*pair) for pair in pairs]) == pytest.approx(expected["f1"].item())


def test_the_threshold_is_the_best_of_all():
    draw = np.random.default_rng(0)
    for _ in range(50):
        count = int(draw.integers(1, 12))
        margins = draw.integers(-4, 5, count).astype(float)  # with ties
        without = draw.integers(0, 2, count).astype(float)
        values = np.where(without == 1, 0.0, draw.random(count))
        threshold, mean = best_threshold(values, without, margins)

        def at(limit, of=(margins, without, values)):
            margins, without, values = of
            return np.where(margins > limit, without, values).mean()

        assert at(threshold) == pytest.approx(mean)
        assert mean == pytest.approx(max(map(at, np.arange(-6, 7, 0.5))))


def test_where_thresholds_are_equally_good_questions_are_answered():
    threshold, mean = best_threshold([0.0, 0.0], [0.0, 0.0], [1.0, 5.0])
    assert threshold > 5
    assert mean == 0
