"""Predictions against the truth: one class for each kind of answer, with all that is to be said about it.

What a figure is, is said in one place: those of `Task.score` are taken from there, and the others stand with the kind
of answer that they belong to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from electra_fast.errors import ConfigError
from electra_fast.workflows.finetuning.task import Columns, Task

Prediction = Mapping[str, Any]


@dataclass(frozen=True)
class Mistake:
    """An example that the model got wrong.

    Attributes:
        index: of the example, from 0. text: what was asked. expected, said: the truth and the answer.
        weight: what the model thought of its answer, 0 to 1, or how wrong it is; the largest come first.
        remark: the same in words.
    """

    index: int
    text: str
    expected: str
    said: str
    weight: float
    remark: str


@dataclass(frozen=True)
class Classes:
    """Figures of each class: precision, recall, F1, how many examples there are, and, with probabilities, the AUC."""

    names: list[str]
    precision: list[float]
    recall: list[float]
    f1: list[float]
    support: list[int]
    auc: list[float | None] | None = None


class Judgement(ABC):
    """All that is to be said of predictions for examples whose truth is known.

    Attributes:
        task, predictions, examples: as in `Task.score`.
    """

    def __init__(self, task: Task, predictions: Sequence[Prediction], examples: Columns) -> None:
        self.task = task
        self.predictions = list(predictions)
        self.examples = examples

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def headline(self) -> str:
        """The figure by which models are compared."""
        return self.task.metric

    @cached_property
    def figures(self) -> dict[str, float]:
        """All figures by name, those of `Task.score` first."""
        return self.task.score(self.predictions, self.examples) | self.more()

    def more(self) -> dict[str, float]:
        """Figures that `Task.score` does not have."""
        return {}

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        """Figures of some examples, each as often as it is drawn: for intervals, and parts of the data.

        `headline` is among them; slow ones may be missing.
        """
        drawn = {name: [values[i] for i in indices] for name, values in self.examples.items()}
        return self.task.score([self.predictions[i] for i in indices], drawn)

    @property
    @abstractmethod
    def values(self) -> np.ndarray:
        """How good the answer to each example is, ``[n]``: 1 if all is right, 0 if nothing; or minus its error."""

    @abstractmethod
    def mistake(self, index: int) -> Mistake:
        """What there is to show of an example that is not right."""

    def mistakes(self, count: int) -> list[Mistake]:
        """Those that the model was surest of."""
        wrong = [self.mistake(int(index)) for index in np.flatnonzero(self.values < self.right)]
        return sorted(wrong, key=lambda mistake: -mistake.weight)[:count]

    @property
    def right(self) -> float:
        """The value of an answer that is wholly right."""
        return 1.0

    def text(self, index: int) -> str:
        """The inputs of an example, one below the other."""
        parts = (self.examples[name][index] for name in self.task.inputs if name in self.examples)
        return "\n".join(part if isinstance(part, str) else " ".join(map(str, part)) for part in parts if part)

    def words(self, index: int) -> int:
        """How long an example is, in words."""
        return len(self.text(index).split())

    def classes(self) -> Classes | None:
        """Figures class by class, where there are classes."""
        return None

    def confusion(self) -> tuple[list[str], np.ndarray] | None:
        """Names, and counts ``[truth, said]``, where an answer is one of several classes."""
        return None

    def confidence(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Probabilities that the model gave to what it said, and whether that is right (0 or 1): for calibration."""
        return None

    def evidence(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Logits and truth, as `fit_temperature` takes them, where an answer has a probability for each label."""
        return None

    @property
    def is_share(self) -> bool:
        """Whether `headline` is the share of examples that are right, each of them wholly or not at all."""
        values = self.values
        only_those = bool(np.isin(values, (0.0, 1.0)).all())
        return only_those and bool(np.isclose(values.mean(), self.figures[self.headline]))

    def baseline(self) -> tuple[str, float] | None:
        """What an answer that does not look at the text would get in `headline`, and which answer that is."""
        return None


def judge(task: Task, predictions: Sequence[Prediction], examples: Columns) -> Judgement:
    """The judgement of a task's predictions.

    Args:
        examples: columns of `Task.read`, with labels, in the predictions' order.
    """
    if task.name == "classification":
        from . import labels, regression

        kind = {"single": labels.OneLabel, "multi": labels.SeveralLabels, "regression": regression.Number}[task.problem]
    elif task.name == "choice":
        from .choices import Choice as kind
    elif task.name == "ner":
        from .entities import Entities as kind
    elif task.name == "qa":
        from .answers import Answer as kind
    elif task.name == "translation":
        from .translations import Translation as kind
    else:
        raise ConfigError(f"there is no evaluation for the task {task.name!r}")
    return kind(task, predictions, examples)


def sure(share: float) -> tuple[float, str]:
    """Weight and remark of a `Mistake` that the model gave a probability to."""
    return share, f"sure to {share:.0%}"


def shortened(text: str, most: int = 400) -> str:
    """A text as it fits a table."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
