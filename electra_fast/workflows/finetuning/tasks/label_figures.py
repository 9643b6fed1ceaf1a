"""Figures of labels: accuracy, precision, recall, F1, Matthews' correlation, and the area under the ROC curve.

All are functions of counts, so that a thousand resampled sets cost what a few calls of scikit-learn do; the
tests hold them against those. A share with nothing below the line is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class ByLabel(NamedTuple):
    """Precision, recall, F1 and number of each label, ``[labels]``."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def by_label(right: np.ndarray, said: np.ndarray, there: np.ndarray) -> ByLabel:
    """``P = right / said``, ``R = right / there``, ``F1 = 2·right / (said + there)`` of each label.

    Args:
        right: how often it was said rightly. said: how often it was said. there: how often it is true.
    """
    return ByLabel(_share(right, said), _share(right, there), _share(2 * right, said + there), there)


def confusion_counts(truth: np.ndarray, said: np.ndarray, labels: int, weights: np.ndarray | None = None) -> np.ndarray:
    """``[truth, said]``: how often the one was said where the other is true.

    Args:
        truth, said: int ``[n]``, below ``labels``. weights: how often each example counts.
    """
    return np.bincount(truth * labels + said, weights=weights, minlength=labels**2).reshape(labels, labels)


def confusion_figures(counts: np.ndarray) -> dict[str, float]:
    """Figures of one label an example, from `confusion_counts`.

    ``accuracy``; ``precision_macro``, ``recall_macro``, ``f1_macro``, means over the labels that occur in the truth or
    in the answers; ``mcc``, Matthews' correlation (of more than two labels Gorodkin's, 2004). With one label an
    example, micro precision, recall and F1 are all the accuracy.
    """
    right, said, there = np.diagonal(counts), counts.sum(0), counts.sum(1)
    found = by_label(right, said, there)
    occurs = said + there > 0
    total = counts.sum()
    spread = (total**2 - (said**2).sum()) * (total**2 - (there**2).sum())
    covariance = right.sum() * total - (said * there).sum()
    return {
        "accuracy": float(right.sum() / total),
        "precision_macro": float(found.precision[occurs].mean()),
        "recall_macro": float(found.recall[occurs].mean()),
        "f1_macro": float(found.f1[occurs].mean()),
        "mcc": float(covariance / np.sqrt(spread)) if spread > 0 else 0.0,
    }


def label_figures(truth: Sequence[Any], said: Sequence[Any]) -> dict[str, float]:
    """`confusion_figures` of labels of any kind."""
    names, codes = np.unique([*truth, *said], return_inverse=True)
    return confusion_figures(confusion_counts(*np.split(codes, 2), len(names)))


def several_figures(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Figures of any number of labels an example, bool ``[n, labels]``.

    ``precision``, ``recall`` and ``f1``, each ``_micro`` (over all decisions) and ``_macro`` (mean over the labels);
    ``exact_match``, the share of examples all of whose labels are right.
    """
    counts = (truth & said).sum(0), said.sum(0), truth.sum(0)
    micro, macro = by_label(*(count.sum(keepdims=True) for count in counts)), by_label(*counts)
    figures = {f"{name}_micro": float(getattr(micro, name)[0]) for name in ("precision", "recall", "f1")}
    figures |= {f"{name}_macro": float(getattr(macro, name).mean()) for name in ("precision", "recall", "f1")}
    return figures | {"exact_match": float((truth == said).all(1).mean())}


def area_under_curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    """Area under the ROC curve of a score for a yes or no; None where all are yes, or all no.

    It is the probability that a yes scores higher than a no, ties counting half (Mann and Whitney 1947).

    Args:
        truth: bool ``[n]``. weights: how often each example counts.
    """
    weights = np.ones(len(truth)) if weights is None else weights
    values, place = np.unique(score, return_inverse=True)
    yes = np.bincount(place, weights * truth, len(values))
    no = np.bincount(place, weights * ~truth, len(values))
    if not yes.any() or not no.any():
        return None
    lower = np.cumsum(no) - no
    return float((yes * (lower + no / 2)).sum() / (yes.sum() * no.sum()))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole == 0, 1, whole)
