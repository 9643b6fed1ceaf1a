"""Predicting many inputs: order, batches, windows, precisions, and that all of it gives the same answers."""

import random

import pytest
import torch

from electra_fast import _native, load_task
from electra_fast.errors import ConfigError, DataError
from electra_fast.ops.encoder import encoder_missing
from electra_fast.workflows.evaluation.predictor import batches
from electra_fast.workflows.finetuning import FinetuneOptions, finetune, outcome

from .conftest import BAD, GOOD, TINY, sentence


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(5)
    return [" ".join(sentence(draw, draw.choice((GOOD, BAD))) for _ in range(draw.randint(1, 3))) for _ in range(70)]


@pytest.fixture(scope="module")
def model(checkpoint, reviews, tmp_path_factory):
    """A model of a few steps."""
    train, dev = reviews
    files = {"model": checkpoint, "train": train, "dev": dev, "output": tmp_path_factory.mktemp("run")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "keep_freed_memory", lambda: True)
        patch.setattr(outcome, "draw_curves", lambda records, metric, path: True)
        return finetune(FinetuneOptions(**files, **{**TINY, "max_steps": 4, "epochs": None})).model


def test_batches_hold_rows_of_similar_length():
    lengths = [3, 9, 1, 20, 4, 4, 2]
    found = list(batches(lengths, 10))
    assert sorted(index for batch in found for index in batch) == list(range(7))
    assert [[lengths[i] for i in batch] for batch in found] == [[20], [9], [4, 4], [3, 2, 1]]
    assert list(batches([], 10)) == []


def test_streams_batches_precisions_and_backends_agree(model, texts):
    predictor = load_task(model, precision="fp32", batch_tokens=100)
    one_by_one = [predictor.predict([text])[0] for text in texts]
    chances = [prediction["probabilities"]["good"] for prediction in one_by_one]

    def agrees(predictions, tolerance):
        found = [prediction["probabilities"]["good"] for prediction in predictions]
        assert found == pytest.approx(chances, abs=tolerance)

    agrees(predictor(iter(texts), window=16), 1e-5)
    agrees(predictor.predict(texts), 1e-5)
    agrees(load_task(model, backend="transformers").predict(texts), 1e-5)
    agrees(load_task(model, precision="bf16").predict(texts), 2e-2)
    if encoder_missing("cpu", torch.bfloat16, torch.int8) is None:
        agrees(load_task(model, precision="int8").predict(texts), 5e-2)
    encoded = predictor.encode(texts)
    agrees(predictor.decode(predictor.infer(encoded.rows, encoded.lengths), encoded), 1e-5)
    assert predictor.predict([]) == []
    assert list(predictor([])) == []


def test_first_answers_come_before_the_inputs_end(model, texts):
    taken = []

    def inputs():
        for text in texts:
            taken.append(text)
            yield text

    answers = load_task(model)(inputs(), window=8)
    seen = []
    for _ in range(20):
        next(answers)
        seen.append(len(taken))
    assert seen[:7] == [1, 3, 3, 7, 7, 7, 7]
    assert max(seen) <= 23


def test_what_comes_before_a_mistake_is_predicted(model):
    answers = load_task(model)(["good", "bad", 3])
    assert next(answers)["label"] in ("good", "bad")
    next(answers)
    with pytest.raises(DataError, match="input 3: an input must be a text or an object with 'text', got 3"):
        next(answers)


def test_what_cannot_be_loaded(model):
    for options, message in (
        ({"precision": "fp16"}, "precision must be auto, fp32, bf16 or int8, got 'fp16'"),
        ({"backend": "torch"}, "backend must be electra_fast or transformers, got 'torch'"),
        (
            {"backend": "transformers", "precision": "bf16"},
            "backend transformers computes in fp32, got precision 'bf16'",
        ),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_task(model, **options)
        assert str(caught.value) == message
