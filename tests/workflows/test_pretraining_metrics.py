"""Streaming figures of a run against scikit-learn and plain counting."""

import math

import pytest
import torch
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from electra_fast.data import PackedBatch
from electra_fast.models import PretrainingOutput
from electra_fast.workflows.pretraining.metrics import RunningMetrics, binary_entropy


def output(tokens=500, slots=60, seed=0, spread=1.0, fakes=0.2, shift=0.5, padding=20):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(tokens, generator=generator) < fakes
    logits = torch.randn(tokens, generator=generator) * spread + labels * shift * spread - 2.0
    mask = torch.arange(tokens) < tokens - padding
    targets = torch.randint(0, 9, (slots,), generator=generator)
    targets[-5:] = -100
    sampled, predicted = (torch.randint(0, 9, (slots,), generator=generator) for _ in range(2))
    return PretrainingOutput(
        loss=torch.tensor(3.0 + seed),
        generator_loss_sum=torch.tensor(80.0),
        generator_count=torch.tensor(slots - 5),
        discriminator_loss_sum=torch.tensor(120.0),
        discriminator_count=torch.tensor(tokens - padding),
        logits=logits,
        labels=labels,
        mask=mask,
        positions=torch.zeros(slots, dtype=torch.int64),
        targets=targets,
        sampled=sampled,
        predicted=predicted,
    )


def count(metrics, each):
    """One batch of two sequences and its output."""
    tokens, real = each.mask.shape[0], int(each.mask.sum())
    places = torch.zeros(tokens, dtype=torch.int64)
    metrics.count(PackedBatch(places, places, places, torch.tensor([0, 100, real, real]), real, 2))
    metrics.update(each)


@pytest.mark.parametrize("spread", [0.02, 1.0, 6.0])
def test_figures_of_several_batches_agree_with_scikit_learn(spread):
    outputs = [output(seed=seed, spread=spread) for seed in range(4)]
    metrics = RunningMetrics()
    for each in outputs:
        count(metrics, each)
        metrics.end_step(each.loss, torch.tensor(2.0))
    found = metrics.compute()
    logits = torch.cat([each.logits[each.mask] for each in outputs])
    labels = torch.cat([each.labels[each.mask] for each in outputs])
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=2e-3 if spread < 0.1 else 1e-4)
    assert found["fake_rate"] == pytest.approx(labels.double().mean().item())
    assert found["recall"] == pytest.approx(recall_score(labels, logits > 0))
    assert found["accuracy"] == pytest.approx(((logits > 0) == labels).double().mean().item())
    if (logits > 0).any():
        assert found["precision"] == pytest.approx(precision_score(labels, logits > 0))
    assert found["discriminator_loss"] == pytest.approx(120 / 480)
    assert found["generator_loss"] == pytest.approx(80 / 55)
    assert found["entropy"] == pytest.approx(binary_entropy(found["fake_rate"]))
    assert found["loss_minus_entropy"] == pytest.approx(found["discriminator_loss"] - found["entropy"])
    used = [each.targets != -100 for each in outputs]
    for name, field in (("generator_accuracy", "predicted"), ("sampled_accuracy", "sampled")):
        right = sum((getattr(e, field)[u] == e.targets[u]).sum().item() for e, u in zip(outputs, used, strict=True))
        assert found[name] == pytest.approx(right / 220)
    assert found["loss"] == pytest.approx(4.5)
    assert found["gradient_norm"] == pytest.approx(2.0)
    assert found["padding"] == pytest.approx(20 / 500)
    assert metrics.pairs == 4 * (100**2 + 380**2)


def test_state_continues_exactly_and_reset_forgets():
    metrics, resumed, fresh = RunningMetrics(), RunningMetrics(), RunningMetrics()
    count(metrics, output(seed=1))
    metrics.end_step(torch.tensor(1.0))
    resumed.load_state_dict(metrics.state_dict())
    for each in (metrics, resumed):
        count(each, output(seed=2))
        each.end_step(torch.tensor(2.0))
    assert metrics.compute() == resumed.compute()
    assert metrics.pairs == resumed.pairs > 0
    metrics.reset()
    for each in (metrics, fresh):
        count(each, output(seed=3))
        each.end_step(torch.tensor(3.0))
    assert metrics.compute() == fresh.compute()


def test_rates_of_nothing_are_nan():
    metrics = RunningMetrics()
    count(metrics, output(fakes=0.0))
    metrics.end_step(torch.tensor(1.0))
    found = metrics.compute()
    assert math.isnan(found["auc"])
    assert math.isnan(found["recall"])
    assert found["entropy"] == 0.0
    assert math.isnan(RunningMetrics().compute()["entropy"])


def test_entropy():
    assert binary_entropy(0.5) == pytest.approx(math.log(2))
    assert binary_entropy(0.138) == pytest.approx(0.4013, abs=1e-4)
    assert binary_entropy(1.0) == 0.0
