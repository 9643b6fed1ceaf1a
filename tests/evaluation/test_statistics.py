"""Intervals, significance and calibration: against what is known exactly, and against libraries."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from electra_fast.errors import CheckpointError
from electra_fast.workflows.evaluation.bootstrap import interval, resample
from electra_fast.workflows.evaluation.calibration import (
    Temperature,
    calibration,
    fit_temperature,
    read_temperature,
    write_temperature,
)
from electra_fast.workflows.evaluation.significance import holm, mcnemar, paired_bootstrap
from electra_fast.workflows.finetuning.tasks.label_figures import (
    area_under_curve,
    by_label,
    confusion_counts,
    label_figures,
    several_figures,
)


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def test_an_interval_of_a_mean_is_about_the_textbooks(draws):
    right = (draws.random(400) < 0.8).astype(float)
    found = resample(lambda indices: {"accuracy": right[indices].mean()}, 400, 2000, seed=1)
    low, high = interval(found["accuracy"])
    width = 2 * 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert low < right.mean() < high
    assert high - low == pytest.approx(width, rel=0.15)


def test_the_same_seed_draws_the_same_sets_and_what_a_set_has_not_is_nan():
    calls = []

    def figures(indices):
        calls.append(indices)
        return {"sum": float(indices.sum())} | ({"rare": 1.0} if len(calls) == 2 else {})

    one, other = resample(figures, 5, 3, seed=7), resample(figures, 5, 3, seed=7)
    assert one["sum"].tolist() == other["sum"].tolist()
    assert np.isnan(one["rare"]).tolist() == [True, False, True]
    assert interval(one["rare"]) == (1.0, 1.0)
    assert interval(np.array([np.nan])) is None


def test_mcnemar_is_the_binomial_test_of_the_examples_that_differ():
    first = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 1])
    second = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 1])
    assert mcnemar(first, second) == (6, 1, pytest.approx(stats.binomtest(6, 7).pvalue))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_a_paired_bootstrap_tells_a_difference_from_none(draws):
    base = draws.normal(size=999)
    assert paired_bootstrap(base, base + 1) == pytest.approx(2 / 1000)
    assert paired_bootstrap(base, base) == 1.0
    assert paired_bootstrap(base, base + draws.normal(size=999)) > 0.5


def test_holm_adjusts_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("classes", [2, 4])
def test_label_figures_are_those_of_scikit_learn(draws, classes):
    truth, said = draws.integers(0, classes, 300), draws.integers(0, classes, 300)
    assert label_figures([f"l{x}" for x in truth], [f"l{x}" for x in said]) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, said),
            "precision_macro": metrics.precision_score(truth, said, average="macro"),
            "recall_macro": metrics.balanced_accuracy_score(truth, said),
            "f1_macro": metrics.f1_score(truth, said, average="macro"),
            "mcc": metrics.matthews_corrcoef(truth, said),
        }
    )
    counts = confusion_counts(truth, said, classes)
    assert (counts == metrics.confusion_matrix(truth, said)).all()
    found = by_label(np.diagonal(counts), counts.sum(0), counts.sum(1))
    for ours, theirs in zip(found, metrics.precision_recall_fscore_support(truth, said), strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_labels_that_are_never_said_or_never_true_count_as_in_scikit_learn():
    truth, said = ["a", "a", "b", "c"], ["a", "b", "a", "d"]
    figures = label_figures(truth, said)
    for name, measure in (("precision", metrics.precision_score), ("recall", metrics.recall_score)):
        assert figures[f"{name}_macro"] == measure(truth, said, average="macro", zero_division=0)
    assert label_figures(["a", "a"], ["a", "a"])["mcc"] == 0


def test_weights_are_repetitions(draws):
    truth, said, score = draws.integers(0, 2, 50), draws.integers(0, 2, 50), draws.integers(0, 9, 50)
    weights = draws.integers(0, 4, 50)
    many = [np.repeat(x, weights) for x in (truth, said, score)]
    assert (confusion_counts(truth, said, 2, weights) == confusion_counts(*many[:2], 2)).all()
    assert area_under_curve(truth == 1, score, weights) == pytest.approx(metrics.roc_auc_score(many[0], many[2]))


def test_figures_of_several_labels_are_those_of_torchmetrics(draws):
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    truth, said = draws.random((200, 5)) < 0.4, draws.random((200, 5)) < 0.4
    figures = several_figures(truth, said)
    both = torch.from_numpy(said), torch.from_numpy(truth)
    for name in ("precision", "recall", "f1_score"):
        for average in ("micro", "macro"):
            measure = getattr(torchmetrics.functional.classification, f"multilabel_{name}")
            expected = measure(both[0].int(), both[1].int(), num_labels=5, average=average).item()
            assert figures[f"{name.removesuffix('_score')}_{average}"] == pytest.approx(expected, abs=1e-6)
    assert figures["exact_match"] == metrics.accuracy_score(truth, said)


def test_the_area_under_the_curve_counts_pairs(draws):
    truth, score = draws.random(60) < 0.3, draws.integers(0, 9, 60)
    pairs = [(y > n) + 0.5 * (y == n) for y in score[truth] for n in score[~truth]]
    assert area_under_curve(truth, score) == pytest.approx(np.mean(pairs))
    assert area_under_curve(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))
    assert area_under_curve(truth, score, truth.astype(int)) is None
    assert area_under_curve(np.ones(3, bool), score[:3]) is None


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    found = calibration(confidence, np.array([1, 1, 1, 0, 0, 1.0]))
    assert found.bins == [
        (pytest.approx(0.55), 0.5, 2),
        (pytest.approx(0.95), 0.75, 4),
    ]
    assert found.error == pytest.approx((2 * 0.05 + 4 * 0.20) / 6)
    assert found.brier == pytest.approx(metrics.brier_score_loss([1, 1, 1, 0, 0, 1], confidence))
    assert found.verdict.startswith("It is over-confident")
    perfect = calibration(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert (perfect.error, perfect.verdict) == (0, "Its probabilities are right on average")
    random = calibration(np.array([0.9, 0.1]), np.array([0.0, 1.0]))
    assert random.verdict.endswith("but not one by one: bin by bin they are off by 90%")


def test_the_error_is_that_of_torchmetrics(draws):
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    confidence = draws.random(500)
    right = (draws.random(500) < confidence**2).astype(float)
    binary = torchmetrics.functional.classification.binary_calibration_error
    expected = binary(torch.from_numpy(confidence), torch.from_numpy(right).int(), n_bins=15, norm="l1").item()
    assert calibration(confidence, right).error == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_a_temperature_undoes_what_made_a_model_too_sure(draws, several, tmp_path):
    logits = draws.normal(size=(20000, 3)) * 2
    if several:
        truth = draws.random(logits.shape) < 1 / (1 + np.exp(-logits))
    else:
        truth = (logits + draws.gumbel(size=logits.shape)).argmax(1)
    found = fit_temperature(logits * 2.5, truth, "dev.tsv")
    assert found.value == pytest.approx(2.5, rel=0.03)
    assert found.loss_after < found.loss_before
    write_temperature(tmp_path, found)
    assert read_temperature(tmp_path) == found


def test_a_damaged_temperature_says_so(tmp_path):
    assert read_temperature(tmp_path) is None
    for text in ("{", '{"value": 1}', "[]"):
        (tmp_path / "temperature.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"temperature\.json is damaged \(remove it, or fit it again\)"):
            read_temperature(tmp_path)
    write_temperature(tmp_path, Temperature(0.0, "d", 1, 1.0, 1.0))
    with pytest.raises(CheckpointError, match="value must be from"):
        read_temperature(tmp_path)
