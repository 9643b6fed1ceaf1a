"""From the scores of answers' first and last tokens to answers: pieces of a text that was read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Span(NamedTuple):
    """Characters ``start … end - 1`` of a text; ``score`` is the sum of the logits of its first and last token."""

    score: float
    start: int
    end: int


def best_spans(
    logits: np.ndarray,
    starts: Sequence[int],
    ends: Sequence[int],
    first: int,
    own: tuple[int, int],
    longest: int,
    n: int,
) -> list[Span]:
    """The ``n`` spans of the highest scores in one window, the best first.

    ``score(i, j) = logits[0, i] + logits[1, j]`` for all ``i <= j < i + longest`` of which ``i`` belongs to the window;
    all of them are compared, no beam is cut.

    Args:
        logits: ``[2, tokens]`` of the row, for the first and the last token of an answer.
        starts, ends: characters of the text where each of its tokens in the window begins and ends.
        first: position of the text's first token in the row.
        own: from which to before which of the window's tokens answers begin here (`windows.Window`, less its start).
        longest: most tokens of an answer.
    """
    count = own[1] - own[0]
    if count <= 0:
        return []
    of_end = np.full(len(starts) + longest - 1, -np.inf)
    of_end[: len(starts)] = logits[1, first : first + len(starts)]
    of_start = logits[0, first + own[0] : first + own[1]].astype(np.float64)
    scores = of_start[:, None] + sliding_window_view(of_end, longest)[own[0] : own[1]]
    flat = scores.ravel()
    n = min(n, flat.size)
    top = np.argpartition(-flat, n - 1)[:n]
    top = top[np.lexsort((top, -flat[top]))]
    spans = []
    for index in top.tolist():
        i, length = divmod(index, longest)
        if np.isfinite(flat[index]):
            spans.append(Span(float(flat[index]), starts[own[0] + i], ends[own[0] + i + length]))
    return spans


def softmax(scores: Sequence[float]) -> list[float]:
    """``exp(s_i) / Σ exp(s_j)``, in float64; of nothing, nothing."""
    if not scores:
        return []
    weights = np.exp(np.asarray(scores, np.float64) - max(scores))
    return (weights / weights.sum()).tolist()
