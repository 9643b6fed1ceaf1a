"""Judgement of answers that are pieces of a text."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from electra_fast.workflows.finetuning.tasks.squad_metrics import answer_f1, exact_match

from .judgement import Judgement, Mistake, shortened, sure


class Answer(Judgement):
    """Extractive question answering, counted as SQuAD's scripts do."""

    @property
    def headline(self) -> str:
        """F1 with the model's own threshold, and not with the best one for these very questions."""
        return "f1"

    @cached_property
    def _gold(self) -> list[list[str]]:
        return [list(answers["text"]) for answers in self.examples["answers"]]

    @cached_property
    def exact(self) -> np.ndarray:
        """``[n]``, 0 or 1."""
        return self._each(exact_match)

    @cached_property
    def values(self) -> np.ndarray:
        """F1 of each answer."""
        return self._each(answer_f1)

    def _each(self, measure) -> np.ndarray:
        return np.array([measure(p["answer"], gold) for p, gold in zip(self.predictions, self._gold, strict=True)])

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        return {"exact_match": float(self.exact[indices].mean()), "f1": float(self.values[indices].mean())}

    def text(self, index: int) -> str:
        """The question, and the part of the text around the first right answer."""
        context, answers = self.examples["context"][index], self.examples["answers"][index]
        place = answers["answer_start"][0] if len(answers["answer_start"]) else 0
        begin = max(0, place - 120)
        shown = f"{'…' if begin else ''}{context[begin : begin + 300]}{'…' if len(context) > begin + 300 else ''}"
        return f"{self.examples['question'][index]}\n{shown}"

    def words(self, index: int) -> int:
        return len(self.examples["question"][index].split()) + len(self.examples["context"][index].split())

    def mistake(self, index: int) -> Mistake:
        expected = " | ".join(dict.fromkeys(self._gold[index])) or "no answer"
        prediction = self.predictions[index]
        said, share = prediction["answer"] or "no answer", prediction["probability"]
        return Mistake(index, shortened(self.text(index), 500), expected, said, *sure(share))

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the answer, against exact match."""
        return np.array([prediction["probability"] for prediction in self.predictions]), self.exact
