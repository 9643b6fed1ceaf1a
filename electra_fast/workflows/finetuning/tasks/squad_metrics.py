"""SQuAD's figures: exact match and F1 of an answer, and the threshold below which no answer is given.

As the official evaluation scripts of versions 1.1 and 2.0 count (Rajpurkar et al. 2016, 2018): lower case, without
ASCII punctuation and the articles a, an, the, spaces made one; of several right answers the one that fits best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """What is compared: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the answer is one of the gold ones after `normalize_answer`, else 0; no gold ones: if it is empty."""
    return float(normalize_answer(answer) in _normalized(gold))


def answer_f1(answer: str, gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the answer's words, for the gold answer where it is highest.

    Where one of two normalised answers is empty, 1 if both are, else 0.
    """
    words = normalize_answer(answer).split()
    return max(_f1(words, text.split()) for text in _normalized(gold))


def _normalized(gold: Sequence[str]) -> set[str]:
    """Normalised gold answers but for those of which nothing is left; the empty one if there are no others."""
    return {normalize_answer(text) for text in gold} - {""} or {""}


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    same = (Counter(answer) & Counter(gold)).total()
    return 2 * same / (len(answer) + len(gold))


def best_threshold(
    values: Sequence[float], none_values: Sequence[float], margins: Sequence[float]
) -> tuple[float, float]:
    """(threshold, mean) with the highest mean value if questions whose margin exceeds the threshold get no answer.

    Args:
        values: exact match or F1 of each question's best answer.
        none_values: of no answer: 1 for a question that has none, else 0.
        margins: score of no answer minus that of the best answer.

    Where several thresholds are equally good, the highest of them: rather an answer than none. It lies half-way between
    the margins of the questions on its two sides; it is finite.
    """
    order = np.argsort(np.asarray(margins, np.float64), kind="stable")
    ascending = np.asarray(margins, np.float64)[order]
    gain = (np.asarray(values, np.float64) - np.asarray(none_values, np.float64))[order]
    # totals[k]: the k questions of the lowest margins are answered.
    totals = np.concatenate(([0.0], np.cumsum(gain))) + float(np.sum(none_values))
    edges = np.concatenate(([ascending[0] - 1], (ascending[1:] + ascending[:-1]) / 2, [ascending[-1] + 1]))
    possible = np.concatenate(([True], ascending[1:] > ascending[:-1], [True]))
    best = max(np.flatnonzero(possible), key=lambda k: (round(totals[k], 9), k))
    return float(edges[best]), float(totals[best] / len(order))
