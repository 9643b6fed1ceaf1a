"""Pictures of an evaluation, as matplotlib figures: the confusion matrix and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from electra_fast.extras import require
from electra_fast.page import OURS, PALE, png

from .calibration import Calibration
from .results import CONFUSION_NAME, RELIABILITY_NAME, ModelResult

_MOST_NUMBERS = 20  # classes: of more, the cells are too small to write in


def of(found: ModelResult) -> dict[str, bytes]:
    """The pictures that there are of a model, as PNG by the names of their files."""
    drawn = {}
    if found.confusion is not None:
        drawn[CONFUSION_NAME] = png(confusion_matrix(found.confusion[0], np.array(found.confusion[1])))
    if found.calibration is not None:
        drawn[RELIABILITY_NAME] = png(reliability(found.calibration))
    return drawn


def confusion_matrix(names: Sequence[str], counts: np.ndarray) -> Any:
    """Counts ``[truth, said]``, each row coloured by its shares, so that rare classes are seen, too."""
    size = min(14.0, 2.2 + 0.45 * len(names))
    figure, axes = _figure(size + 0.6, size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("what the model says", fontsize=9)
    axes.set_ylabel("what is true", fontsize=9)
    axes.tick_params(length=0)
    if len(names) <= _MOST_NUMBERS:
        for row, column in np.ndindex(*counts.shape):
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
    return figure


def reliability(found: Calibration) -> Any:
    """Share of right answers over what the model thought of them; the size of a point is its share of the answers."""
    figure, axes = _figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color=PALE, linestyle="--", linewidth=1, label="as it should be")
    sure, share, count = (np.array(column) for column in zip(*found.bins, strict=True))
    axes.plot(sure, share, color=OURS, linewidth=1.2, label="this model")
    axes.scatter(sure, share, s=20 + 280 * count / count.sum(), color=OURS, zorder=3)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.set_xlabel("probability that the model gives", fontsize=9)
    axes.set_ylabel("share that is right", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figures = require("matplotlib.figure", "finetune", "a picture of the evaluation")
    figure = figures.Figure(figsize=(width, height))  # no pyplot: it would keep every figure, and look for a display
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
