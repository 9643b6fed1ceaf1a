"""The six classes with heads against transformers: logits, losses, gradients of every parameter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from electra_fast.errors import ConfigError
from electra_fast.models import (
    ElectraConfig,
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    huggingface,
)

HEADS = [name for name in huggingface.CLASSES if name != "ElectraModel"]


def pair_of(make_huggingface, name, **options):
    theirs = make_huggingface(name, **options)
    ours = huggingface.CLASSES[name](ElectraConfig.from_huggingface_dict(theirs.config.to_dict())).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def labels_of(name, batch):
    rows, length = batch.input_ids.shape
    if name == "ElectraForSequenceClassification":
        return {"labels": torch.randint(0, 2, (rows,))}
    if name == "ElectraForMultipleChoice":
        return {"labels": torch.randint(0, 2, (rows // 2,))}
    if name == "ElectraForQuestionAnswering":
        last = batch.attention_mask.sum(1)
        return {"start_positions": last // 2, "end_positions": last - 1}
    labels = torch.randint(0, 2, (rows, length))
    if name != "ElectraForPreTraining":
        labels = labels.masked_fill(batch.attention_mask == 0, -100)
    return {"labels": labels}


@pytest.mark.parametrize("name", HEADS)
def test_logits_loss_and_gradients(make_huggingface, make_batch, relative_error, name):
    theirs, ours = pair_of(make_huggingface, name)
    batch = make_batch()
    inputs = batch.choices() if name == "ElectraForMultipleChoice" else batch.inputs()
    labels, real = labels_of(name, batch), batch.attention_mask != 0
    expected, actual = theirs(**inputs, **labels), ours(**inputs, **labels)
    fields = ("start_logits", "end_logits") if name == "ElectraForQuestionAnswering" else ("logits",)
    for field in fields:
        a, b = getattr(actual, field), getattr(expected, field)
        assert a.shape == b.shape
        if a.shape[:2] == real.shape:
            a, b = a[real], b[real]
        assert relative_error(a, b) < 1e-5
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    loss = expected.loss
    if name == "ElectraForQuestionAnswering":  # transformers' softmax runs over padding too; ours does not
        spans = zip((expected.start_logits, expected.end_logits), labels.values(), strict=True)
        loss = sum(F.cross_entropy(x.masked_fill(~real, -1e30), y) for x, y in spans) / 2
    torch.testing.assert_close(actual.loss, loss, rtol=1e-5, atol=1e-6)
    loss.backward()
    actual.loss.backward()
    expected_gradients = {n: p.grad for n, p in theirs.named_parameters()}
    scale = max(g.norm() for g in expected_gradients.values())
    for n, p in ours.named_parameters():
        difference = (p.grad - expected_gradients[n]).norm()
        assert difference <= 1e-4 * max(expected_gradients[n].norm(), 1e-3 * scale), n


@pytest.mark.parametrize("name", HEADS)
def test_without_a_mask_everything_is_real(make_huggingface, make_batch, name):
    theirs, ours = pair_of(make_huggingface, name)
    batch = make_batch((6, 6))
    ids = batch.input_ids.unflatten(0, (1, 2)) if name == "ElectraForMultipleChoice" else batch.input_ids
    labels = labels_of(name, batch)
    expected, actual = theirs(ids, **labels), ours(ids, **labels)
    torch.testing.assert_close(actual.loss, expected.loss, rtol=1e-5, atol=1e-6)
    assert ours(ids).loss is None


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"num_labels": 1}, torch.randn(4)),
        ({"num_labels": 1}, torch.randn(4, 1)),
        ({"num_labels": 3, "problem_type": "regression"}, torch.randn(4, 3)),
        ({"num_labels": 3}, torch.tensor([0, 2, 1, 1])),
        ({"num_labels": 3}, torch.rand(4, 3).round()),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, torch.rand(4, 3).round()),
    ],
)
def test_kinds_of_classification(make_huggingface, make_batch, options, labels):
    theirs, ours = pair_of(make_huggingface, "ElectraForSequenceClassification", **options)
    inputs = make_batch().inputs()
    expected = theirs(**inputs, labels=labels).loss
    torch.testing.assert_close(ours(**inputs, labels=labels).loss, expected, rtol=1e-5, atol=1e-6)


def test_left_padding_reads_the_first_real_token(make_huggingface):
    """Where a sentence starts late, its [CLS] does too."""
    _, ours = pair_of(make_huggingface, "ElectraForSequenceClassification")
    ids = torch.randint(5, 500, (1, 6))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    mask = (torch.arange(9) >= 3).unsqueeze(0)
    positions = (torch.arange(9) - 3).clamp(min=0)
    torch.testing.assert_close(
        ours(padded, mask, position_ids=positions).logits, ours(ids).logits, rtol=1e-4, atol=1e-5
    )


def test_answers_are_never_padding(make_huggingface, make_batch):
    _, ours = pair_of(make_huggingface, "ElectraForQuestionAnswering")
    batch = make_batch()
    out = ours(**batch.inputs())
    lowest = torch.finfo(torch.float32).min
    assert (out.start_logits[batch.attention_mask == 0] == lowest).all()
    outside = torch.full((4,), batch.input_ids.shape[1] + 3)
    assert ours(**batch.inputs(), start_positions=outside, end_positions=outside).loss.isnan()  # nothing to count


def test_heads_drop_in_training(make_batch):
    config = ElectraConfig(vocab_size=500, num_hidden_layers=1, classifier_dropout=0.5, hidden_dropout_prob=0.0)
    model, batch = ElectraForSequenceClassification(config), make_batch()
    rng = torch.tensor([1, 0])
    assert not torch.equal(model(**batch.inputs(), rng=rng).logits, model(**batch.inputs(), rng=rng).logits)


def test_question_answering_needs_two_labels():
    with pytest.raises(ConfigError, match="num_labels must be 2, an answer's start and end, got 5"):
        ElectraForQuestionAnswering(ElectraConfig(vocab_size=50, num_hidden_layers=1, num_labels=5))


@pytest.mark.parametrize("options", [{"summary_type": "mean"}, {"summary_activation": "tanh"}])
def test_other_summaries_are_refused(options):
    with pytest.raises(ConfigError, match="summary_type must be 'first' and summary_activation 'gelu' or None"):
        ElectraForMultipleChoice(ElectraConfig(vocab_size=50, num_hidden_layers=1, **options))


@pytest.mark.parametrize("options", [{"summary_use_proj": False}, {"summary_activation": ""}])
def test_summary_without_a_part(make_huggingface, make_batch, options):
    theirs, ours = pair_of(make_huggingface, "ElectraForMultipleChoice", **options)
    inputs = make_batch().choices()
    torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=1e-4, atol=1e-5)
