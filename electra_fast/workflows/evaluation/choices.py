"""Judgement of a choice among answers that each question brings along."""

from __future__ import annotations

import numpy as np

from .judgement import Judgement, Mistake, shortened, sure

_TINY = 1e-12  # a probability that rounds to 0


class Choice(Judgement):
    """The number of the right one."""

    @property
    def values(self) -> np.ndarray:
        said = [prediction["label"] for prediction in self.predictions]
        return (np.asarray(self.examples["label"]) == np.asarray(said)).astype(float)

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(self.values[indices].mean())}

    def text(self, index: int) -> str:
        """The context and the question; what there was to choose from is said by the answers."""
        asked = (self.examples[name][index] for name in ("context", "question") if name in self.examples)
        return "\n".join(text for text in asked if text)

    def mistake(self, index: int) -> Mistake:
        prediction, choices = self.predictions[index], self.examples["choices"][index]
        right = choices[self.examples["label"][index]]
        said, share = prediction["choice"], prediction["probability"]
        return Mistake(index, shortened(self.text(index)), right, said, *sure(share))

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([prediction["probability"] for prediction in self.predictions]), self.values

    def baseline(self) -> tuple[str, float]:
        return "a guess", float(np.mean([1 / len(choices) for choices in self.examples["choices"]]))

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        """Questions with fewer choices than others are filled up with impossible ones."""
        most = max(len(choices) for choices in self.examples["choices"])
        shares = np.full((len(self), most), _TINY)
        for row, prediction in zip(shares, self.predictions, strict=True):
            row[: len(prediction["probabilities"])] = np.maximum(prediction["probabilities"], _TINY)
        return np.log(shares), np.asarray(self.examples["label"])
