"""Which predictions on unlabelled text are taken for labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Judgement:
    """What a model says of an example.

    Attributes:
        label: as a labelled example has it: a name, a list of names, the tags of a sentence.
        confidence: of one label, its probability; of several, that of the least certain one (its own or its absence's);
            of a sentence, that of its least certain word.
    """

    label: Any
    confidence: float

    @property
    def kind(self) -> str:
        return kind_of(self.label)


def kind_of(label: Any) -> str:
    """What is counted and balanced: the label; of several, or of tags, those that occur."""
    if isinstance(label, str):
        return label
    return ", ".join(sorted({name.removeprefix("B-").removeprefix("I-") for name in label} - {"O"})) or "none"


def judge_text(prediction: Mapping[str, Any]) -> Judgement:
    """Of a prediction of the task classification."""
    if "label" in prediction:
        return Judgement(prediction["label"], prediction["probability"])
    chances = prediction["probabilities"].values()
    return Judgement(list(prediction["labels"]), min(max(chance, 1 - chance) for chance in chances))


def judge_tags(prediction: Mapping[str, Any], rows: Sequence[np.ndarray]) -> Judgement:
    """Of a prediction of the task ner on given words, and the logits ``[words, labels]`` of its rows."""
    logits = np.concatenate(rows).astype(np.float64)
    # The largest probability of a softmax is 1 / Σ exp(logit - largest).
    largest = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
    return Judgement(prediction["tags"], float(largest.min()))


def accept(
    judgements: Sequence[Judgement],
    confidence: float,
    *,
    cap: int | None = None,
    shares: Mapping[str, float] | None = None,
) -> list[int]:
    """Indices, ascending, of the examples that are taken.

    Args:
        confidence: the least that is taken.
        cap: most examples of a kind; those of the highest confidence are taken.
        shares: of the kinds among the labelled examples: as many of each are taken as keep these shares, as far as the
            kind that is shortest goes (of those of which there are any).
    """
    sure = [index for index, judgement in enumerate(judgements) if judgement.confidence >= confidence]
    counts = Counter(judgements[index].kind for index in sure)
    most = {kind: count if cap is None else min(cap, count) for kind, count in counts.items()}
    if shares is not None:
        known = {kind: count for kind, count in most.items() if shares.get(kind, 0) > 0}
        total = min((count / shares[kind] for kind, count in known.items()), default=0)
        most = {kind: int(total * shares[kind] + 1e-9) for kind in known}
    taken: Counter[str] = Counter()
    kept = []
    for index in sorted(sure, key=lambda index: (-judgements[index].confidence, index)):
        kind = judgements[index].kind
        if taken[kind] < most.get(kind, 0):
            taken[kind] += 1
            kept.append(index)
    return sorted(kept)
