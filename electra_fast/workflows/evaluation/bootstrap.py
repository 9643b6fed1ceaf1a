"""Intervals by drawing examples anew (Efron and Tibshirani 1993, chapter 13: the percentile interval)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LEVEL = 0.95


def resample(
    figures_of: Callable[[np.ndarray], dict[str, float]], examples: int, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Each figure in ``resamples`` sets of as many examples, drawn with replacement.

    Equal ``examples``, ``resamples`` and ``seed`` draw the same sets, so that figures of two models are paired. A
    figure that a set has not (an AUC where all truths are equal) is NaN there.
    """
    draws = np.random.default_rng(seed)
    found = [figures_of(draws.integers(0, examples, examples)) for _ in range(resamples)]
    names = dict.fromkeys(name for figures in found for name in figures)
    return {name: np.array([figures.get(name, np.nan) for figures in found]) for name in names}


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The middle ``level`` of a figure's values; None if it is nowhere a number."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
