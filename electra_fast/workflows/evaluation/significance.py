"""Whether one model is better than another on the same examples, or only looks so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from electra_fast.extras import require

from .bootstrap import interval


@dataclass(frozen=True)
class Comparison:
    """Model ``second`` against ``first``, on the same examples.

    Attributes:
        figure: what is compared. difference: of second less first. low, high: its 95 % interval.
        test: "McNemar" or "paired bootstrap". p_value: of a difference at least as large if there were none; of several
            comparisons adjusted by `holm`.
        only_first, only_second: examples that only the one got right; None where right and wrong is not all there is.
    """

    first: str
    second: str
    figure: str
    difference: float
    low: float
    high: float
    test: str
    p_value: float
    only_first: int | None = None
    only_second: int | None = None


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """How many examples only the first, and only the second, got right, and the exact p-value (McNemar 1947).

    If the two are equally good, each example on which they differ is a fair coin's toss: the p-value is that of a
    two-sided binomial test. No such example: 1.

    Args:
        first, second: 1 for right, 0 for wrong, ``[n]``.
    """
    stats = require("scipy.stats", "finetune", "a comparison of models")
    only_first = int(((first == 1) & (second == 0)).sum())
    only_second = int(((first == 0) & (second == 1)).sum())
    differ = only_first + only_second
    return only_first, only_second, float(stats.binomtest(only_first, differ).pvalue) if differ else 1.0


def paired_bootstrap(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of a difference, from figures of the same resampled sets (Koehn 2004).

    Twice the share of sets in which the difference is not of the sign that most have, at least 1 / (sets + 1).
    """
    difference = second - first
    difference = difference[~np.isnan(difference)]
    least = min((difference <= 0).sum(), (difference >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(difference) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979), in their order: the k-th smallest of m times m - k + 1."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def difference_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95 % interval of second less first, from figures of the same resampled sets; NaN where there are none."""
    return interval(second - first) or (float("nan"), float("nan"))
