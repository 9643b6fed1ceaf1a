"""Integrated gradients: completeness, what they are of a model that is known, and whom they give nothing."""

import pytest
import torch

from electra_fast.models import (
    ElectraConfig,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from electra_fast.reference import attention as reference_attention
from electra_fast.workflows.explanation import attention_probabilities, integrated_gradients
from electra_fast.workflows.explanation.reasons import log_odds

CONFIG = ElectraConfig(
    vocab_size=60, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=32, cls_token_id=2, sep_token_id=3, mask_token_id=4,
)  # fmt: skip
IDS = torch.tensor([2, 17, 30, 8, 55, 3])
BASELINE = torch.tensor([2, 0, 0, 0, 0, 3])
TYPES = torch.zeros_like(IDS)
HEADS = {
    "classes": (ElectraForSequenceClassification, 3, lambda out: log_odds(out[1], 1)),
    "value": (ElectraForSequenceClassification, 1, lambda out: out[1][:, 0]),
    "tags": (ElectraForTokenClassification, 4, lambda out: log_odds(out[1][:, 2], 0)),
    "answers": (ElectraForQuestionAnswering, 2, lambda out: log_odds(out[1], 2) + log_odds(out[2], 3)),
    "replaced": (ElectraForPreTraining, 2, lambda out: out[1][:, 3]),
}


def make(kind):
    cls, labels, number = HEADS[kind]
    model = cls(CONFIG.replace(num_labels=labels)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model, number


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scores_add_up(kind, dtype):
    model, number = make(kind)
    found = integrated_gradients(model.to(dtype), IDS, TYPES, BASELINE, number)
    with torch.no_grad():
        assert found.at_input == pytest.approx(number(model(IDS[None])).item(), abs=1e-5)
        assert found.at_baseline == pytest.approx(number(model(BASELINE[None])).item(), abs=1e-5)
    assert abs(found.residual) < 1e-3 * max(1, abs(found.difference))
    assert sum(map(abs, found.scores)) > 0.01
    assert found.scores[0] == found.scores[-1] == 0  # [CLS] and [SEP] are in the baseline, too
    assert all(score != 0 for score in found.scores[1:-1])


def test_more_points_are_taken_until_they_add_up():
    model, number = make("classes")
    model.double()
    rough = integrated_gradients(model, IDS, TYPES, BASELINE, number, steps=1, most_steps=1)
    fine = integrated_gradients(model, IDS, TYPES, BASELINE, number, steps=1, tolerance=1e-9)
    assert not rough.is_complete(1e-6)
    assert fine.is_complete(1e-9)
    assert fine.steps > rough.steps == 1


def test_against_the_definition_in_a_loop():
    """Riemann's sum, one text at a time, through the encoder's own embedding tables."""
    model, number = make("tags")
    model.double()
    table = model.electra.embeddings.word_embeddings
    kept = table.weight.detach().clone()
    total = torch.zeros(len(IDS), dtype=torch.float64)
    points = 400
    for k in range(points):
        ids = torch.arange(1, len(IDS) + 1)  # 0 is padding: it gets no gradient
        mixed = kept.clone()
        mixed[ids] = kept[BASELINE] + (k + 0.5) / points * (kept[IDS] - kept[BASELINE])
        table.weight.data = mixed
        table.weight.grad = None
        number(model(ids[None])).sum().backward()
        total += ((kept[IDS] - kept[BASELINE]) * table.weight.grad[ids]).sum(-1) / points
    table.weight.data = kept
    found = integrated_gradients(model, IDS, TYPES, BASELINE, number)
    torch.testing.assert_close(torch.tensor(found.scores, dtype=torch.float64), total, atol=1e-5, rtol=1e-4)


def test_log_odds():
    logits = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    p = torch.softmax(logits, -1)[0, 2]
    torch.testing.assert_close(log_odds(logits, 2)[0], torch.log(p / (1 - p)))


def test_attention_is_what_the_reference_computes():
    model, _ = make("classes")
    found = attention_probabilities(model, IDS, TYPES)
    assert found.shape == (2, 2, 6, 6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 2, 6))
    layer = model.electra.encoder.layer[0].attention.self
    with torch.no_grad():
        x = model.electra.embeddings_project(model.electra.embeddings(IDS[None]))[0]
        q, k, v = (linear(x).view(6, 2, 16) for linear in (layer.query, layer.key, layer.value))
    ends = torch.tensor([0, 6], dtype=torch.int32)
    out, _ = reference_attention(q, k, v, ends, ends, 6, 6, 16**-0.5, False, 0.0, None, 0)
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", found[0], v), out, atol=1e-5, rtol=1e-4)
    assert not layer._forward_pre_hooks
