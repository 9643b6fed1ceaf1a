"""Judgement of translations."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from electra_fast.extras import require

from .judgement import Judgement, Mistake, shortened


class Translation(Judgement):
    """Against one reference a sentence, by sacrebleu."""

    @cached_property
    def _said(self) -> list[str]:
        return [prediction["translation"] for prediction in self.predictions]

    @cached_property
    def _counts(self) -> np.ndarray:
        """What BLEU is made of, ``[n, 10]``: n-grams that match and that there are, length, the reference's length."""
        bleu = require("sacrebleu.metrics", "translate", "the evaluation of translations").BLEU(effective_order=True)
        found = (
            bleu.sentence_score(said, [true]) for said, true in zip(self._said, self.examples["target"], strict=True)
        )
        return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in found])

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        """``bleu``, from the sums of each sentence's counts."""
        from sacrebleu.metrics import BLEU

        counts = self._counts[indices].sum(0).tolist()
        return {"bleu": BLEU.compute_bleu(counts[:4], counts[4:8], *counts[8:], smooth_method="exp").score}

    @cached_property
    def values(self) -> np.ndarray:
        """Sentence chrF, 0 to 1."""
        chrf = require("sacrebleu.metrics", "translate", "the evaluation of translations").CHRF()
        pairs = zip(self._said, self.examples["target"], strict=True)
        return np.array([chrf.sentence_score(said, [true]).score / 100 for said, true in pairs])

    def mistake(self, index: int) -> Mistake:
        """The least like their references come first."""
        value = float(self.values[index])
        said = self._said[index] or "nothing"
        text, true = shortened(self.text(index)), self.examples["target"][index]
        return Mistake(index, text, true, said, 1 - value, f"chrF {100 * value:.0f}")
