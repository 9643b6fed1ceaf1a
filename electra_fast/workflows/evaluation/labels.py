"""Judgement of labels: one of several classes, or any number of them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from electra_fast.workflows.finetuning.tasks.label_figures import (
    ByLabel,
    area_under_curve,
    by_label,
    confusion_counts,
    confusion_figures,
    several_figures,
)

from .judgement import Classes, Judgement, Mistake, shortened, sure

_TINY = 1e-12  # a probability that rounds to 0 costs 28 nats, not infinitely many


class OneLabel(Judgement):
    """One of several classes."""

    @cached_property
    def names(self) -> list[str]:
        """Of the classes, in the order of the model's outputs."""
        return list(self.task.labels)

    @cached_property
    def truth(self) -> np.ndarray:
        """int64 ``[n]``, the class that is right."""
        place = {name: index for index, name in enumerate(self.names)}
        return np.array([place[label] for label in self.examples["label"]])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """``[n, classes]``."""
        return np.array([[p["probabilities"][name] for name in self.names] for p in self.predictions])

    @cached_property
    def said(self) -> np.ndarray:
        """int64 ``[n]``."""
        place = {name: index for index, name in enumerate(self.names)}
        return np.array([place[prediction["label"]] for prediction in self.predictions])

    def more(self) -> dict[str, float]:
        """``auc`` (of two classes; of more the mean of each against the rest), ``log_loss`` in nats, ``brier``."""
        likely = np.maximum(self.probabilities[np.arange(len(self)), self.truth], _TINY)
        right = np.eye(len(self.names))[self.truth]
        return self._auc(None) | {
            "log_loss": float(-np.log(likely).mean()),
            "brier": float(((self.probabilities - right) ** 2).sum(1).mean()),
        }

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        """From how often each example is drawn: quick for any number of them."""
        drawn = np.bincount(indices, minlength=len(self))
        return confusion_figures(self._counts(drawn)) | self._auc(drawn)

    def _counts(self, weights: np.ndarray | None = None) -> np.ndarray:
        return confusion_counts(self.truth, self.said, len(self.names), weights)

    def _auc(self, counts: np.ndarray | None) -> dict[str, float]:
        found = [area for area in self._areas(counts) if area is not None]
        return {"auc": float(np.mean(found))} if found else {}

    def _areas(self, counts: np.ndarray | None) -> list[float | None]:
        """Of two classes one says it all: the area of the other is the same."""
        which = range(1, 2) if len(self.names) == 2 else range(len(self.names))
        return [area_under_curve(self.truth == c, self.probabilities[:, c], counts) for c in which]

    @property
    def values(self) -> np.ndarray:
        return (self.truth == self.said).astype(float)

    def mistake(self, index: int) -> Mistake:
        said = self.said[index]
        return Mistake(
            index,
            shortened(self.text(index)),
            self.names[self.truth[index]],
            self.names[said],
            *sure(float(self.probabilities[index, said])),
        )

    def classes(self) -> Classes:
        counts = self._counts()
        found = by_label(np.diagonal(counts), counts.sum(0), counts.sum(1))
        areas = self._areas(None)
        return _classes(self.names, found, areas * 2 if len(self.names) == 2 else areas)

    def confusion(self) -> tuple[list[str], np.ndarray]:
        return self.names, self._counts()

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        return self.probabilities[np.arange(len(self)), self.said], self.values

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        return np.log(np.maximum(self.probabilities, _TINY)), self.truth

    def baseline(self) -> tuple[str, float]:
        counts = np.bincount(self.truth, minlength=len(self.names))
        return f"always “{self.names[counts.argmax()]}”", float(counts.max() / len(self))


class SeveralLabels(Judgement):
    """Any number of labels: a yes or no for each."""

    @cached_property
    def names(self) -> list[str]:
        """Of the labels, in the order of the model's outputs."""
        return list(self.task.labels)

    @cached_property
    def truth(self) -> np.ndarray:
        """bool ``[n, labels]``."""
        return np.array([[name in labels for name in self.names] for labels in self.examples["label"]])

    @cached_property
    def said(self) -> np.ndarray:
        """bool ``[n, labels]``."""
        return np.array([[name in p["labels"] for name in self.names] for p in self.predictions])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """``[n, labels]``."""
        return np.array([[p["probabilities"][name] for name in self.names] for p in self.predictions])

    def more(self) -> dict[str, float]:
        """``auc_macro``, ``brier`` (mean over all decisions)."""
        areas = [area for area in self._areas() if area is not None]
        figures = {"auc_macro": float(np.mean(areas))} if areas else {}
        return figures | {"brier": float(((self.probabilities - self.truth) ** 2).mean())}

    def _areas(self) -> list[float | None]:
        return [area_under_curve(self.truth[:, c], self.probabilities[:, c]) for c in range(len(self.names))]

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        return several_figures(self.truth[indices], self.said[indices])

    @property
    def values(self) -> np.ndarray:
        """1 where all labels are right."""
        return (self.truth == self.said).all(1).astype(float)

    def mistake(self, index: int) -> Mistake:
        wrong = self.truth[index] != self.said[index]
        certain = np.abs(self.probabilities[index] - ~self.said[index])  # of each yes its probability, of a no the rest
        return Mistake(
            index,
            shortened(self.text(index)),
            self._listed(self.truth[index]),
            self._listed(self.said[index]),
            *sure(float(certain[wrong].max())),
        )

    def _listed(self, which: np.ndarray) -> str:
        return ", ".join(name for name, yes in zip(self.names, which, strict=True) if yes) or "none"

    def classes(self) -> Classes:
        found = by_label((self.truth & self.said).sum(0), self.said.sum(0), self.truth.sum(0))
        return _classes(self.names, found, self._areas())

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every label its probability, and whether it applies."""
        return self.probabilities.ravel(), self.truth.ravel().astype(float)

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        yes = np.clip(self.probabilities, _TINY, 1 - _TINY)
        return np.log(yes) - np.log1p(-yes), self.truth


def _classes(names: list[str], found: ByLabel, areas: list[float | None]) -> Classes:
    return Classes(names, *(values.tolist() for values in found), areas)
