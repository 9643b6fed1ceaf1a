"""Judgement of a number."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .judgement import Judgement, Mistake, shortened


class Number(Judgement):
    """Regression."""

    @cached_property
    def truth(self) -> np.ndarray:
        """``[n]``."""
        return np.asarray(self.examples["label"], np.float64)

    @cached_property
    def said(self) -> np.ndarray:
        """``[n]``."""
        return np.array([prediction["value"] for prediction in self.predictions])

    def more(self) -> dict[str, float]:
        """``mae``, the mean absolute error; ``r2``, one less the error's share of the variance."""
        from sklearn import metrics

        figures = {"mae": float(metrics.mean_absolute_error(self.truth, self.said))}
        return figures | ({"r2": float(metrics.r2_score(self.truth, self.said))} if len(self) > 1 else {})

    @property
    def right(self) -> float:
        return 0.0

    @property
    def values(self) -> np.ndarray:
        """Minus the absolute error."""
        return -np.abs(self.said - self.truth)

    def mistake(self, index: int) -> Mistake:
        error = float(-self.values[index])
        expected, said = f"{self.truth[index]:.4g}", f"{self.said[index]:.4g}"
        return Mistake(index, shortened(self.text(index)), expected, said, error, f"off by {error:.4g}")
