"""Which predictions become labels."""

import numpy as np
import pytest

from electra_fast.workflows.self_training.pseudo_labels import Judgement, accept, judge_tags, judge_text, kind_of


def judgements(*pairs):
    return [Judgement(label, confidence) for label, confidence in pairs]


SOME = judgements(("a", 0.95), ("b", 0.99), ("a", 0.5), ("a", 0.9), ("a", 0.97), ("b", 0.91), ("c", 0.2))


def test_the_sure_ones_are_taken():
    assert accept(SOME, 0.9) == [0, 1, 3, 4, 5]
    assert accept(SOME, 0.96) == [1, 4]
    assert accept(SOME, 0.995) == []


def test_a_cap_takes_the_surest_of_each():
    assert accept(SOME, 0.9, cap=1) == [1, 4]
    assert accept(SOME, 0.9, cap=2) == [0, 1, 4, 5]


def test_shares_are_kept():
    assert accept(SOME, 0.9, shares={"a": 0.5, "b": 0.5}) == [0, 1, 4, 5]
    assert accept(SOME, 0.9, shares={"a": 0.25, "b": 0.75}) == [1, 5]
    assert accept(SOME, 0.1, shares={"a": 0.5, "b": 0.25, "c": 0.25}) == [0, 1, 4, 6]
    assert accept(SOME, 0.9, shares={"a": 0.5, "c": 0.5}) == [0, 3, 4]  # of c there is none


def test_confidence_of_texts():
    one = judge_text({"label": "a", "probability": 0.7, "probabilities": {"a": 0.7, "b": 0.3}})
    assert one == Judgement("a", 0.7)
    several = judge_text({"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.2, "c": 0.05}})
    assert several == Judgement(["a"], 0.8)  # b's absence is least certain
    assert several.kind == "a"
    assert kind_of([]) == "none"


def test_confidence_of_a_sentence_is_that_of_its_least_certain_word():
    rows = [np.log([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]]), np.log([[0.1, 0.3, 0.6]])]
    found = judge_tags({"tags": ["O", "B-x", "I-x"]}, rows)
    assert found.confidence == pytest.approx(0.6)
    assert found.kind == "x"
    assert kind_of(["O", "O"]) == "none"
    assert kind_of(["B-x", "I-x", "B-a"]) == "a, x"
