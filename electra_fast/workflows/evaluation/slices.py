"""Where the model is weak: the headline figure for short and for long texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .judgement import Judgement

_PARTS = 4
_LEAST = 5  # examples of a part: of fewer a figure says nothing


@dataclass(frozen=True)
class Slice:
    """Examples of ``shortest`` to ``longest`` words, how many there are, and their headline figure."""

    shortest: int
    longest: int
    examples: int
    figure: float


def by_length(judgement: Judgement) -> list[Slice]:
    """Quarters of the examples by the number of words of all inputs together, equal lengths in one part."""
    lengths = np.array([judgement.words(index) for index in range(len(judgement))])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _PARTS + 1)[1:-1], method="lower"))
    parts = np.searchsorted(edges, lengths)
    found = []
    for part in np.unique(parts):
        indices = np.flatnonzero(parts == part)
        if len(indices) < _LEAST:
            continue
        figure = judgement.figures_of(indices)[judgement.headline]
        found.append(Slice(int(lengths[indices].min()), int(lengths[indices].max()), len(indices), figure))
    return found
