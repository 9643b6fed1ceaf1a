"""What a pretraining step says about itself, summed on the device and read only when it is shown.

The question people ask is "is my discriminator learning?". A discriminator that knows nothing but how many tokens are
fake has a loss of H(fake rate), the binary entropy; only a loss below it means that it finds them. Accuracy says
nothing (calling every token original scores 90 % and more), so AUC, precision and recall are reported beside it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from electra_fast.data.batches import PackedBatch
from electra_fast.models.pretraining import UNUSED, PretrainingOutput

from .ranks import Ranks

BINS = 1 << 16
RANGE = 16.0  # logits beyond ±16 share the outermost bins
_SUMS = (
    "loss",
    "generator_loss",
    "generator_count",
    "discriminator_loss",
    "discriminator_count",
    "slots_count",
    "generator_correct",
    "sampled_correct",
    "gradient_norm",
    "skipped_steps",
)
_COUNTS = ("steps", "tokens", "slots", "pairs")  # by the host


class RunningMetrics:
    """Sums over the steps since the last `reset`: about fifteen small tensor operations a batch, no synchronisation.

    The discriminator's logits are counted in two histograms (original, fake) of `BINS` bins over ±`RANGE`, bin edges
    at 0 included: precision and recall are exact, and the AUC is exact up to the order of logits within 1/2048.

    Args:
        counts_steps: False on all processes of a run but one, because all see the same steps, losses and norms.
    """

    def __init__(self, device: torch.device | str = "cpu", counts_steps: bool = True) -> None:
        self.counts_steps = counts_steps
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self.step_sums = torch.zeros_like(self.sums)  # of the step in hand, which may turn out not to be finite
        self.histogram = torch.zeros(2 * BINS, dtype=torch.int64, device=device)
        self.steps = 0
        self.tokens = 0
        self.slots = 0
        self.pairs = 0

    def count(self, batch: PackedBatch) -> None:
        """Count the text of one batch, while it is still in the host's memory."""
        self.tokens += batch.tokens
        self.slots += batch.input_ids.shape[0]
        self.pairs += batch.pairs

    @torch.no_grad()
    def update(self, output: PretrainingOutput) -> None:
        """Count what came of one batch."""
        # A NaN becomes bin 0: counting must not fail before the step's loss has been looked at.
        index = (output.logits.float() * (BINS / (2 * RANGE))).add_(BINS // 2).clamp_(0, BINS - 1).nan_to_num_(0).long()
        index = index.add_(output.labels, alpha=BINS)
        self.histogram.index_add_(0, index, output.mask.long())
        zero = output.loss.new_zeros(())
        values = (
            zero,  # loss, gradient_norm and skipped_steps are the step's
            output.generator_loss_sum,
            output.generator_count,
            output.discriminator_loss_sum,
            output.discriminator_count,
            (output.targets != UNUSED).sum(),
            (output.predicted == output.targets).sum(),
            (output.sampled == output.targets).sum(),
            zero,
            zero,
        )
        self.step_sums += torch.stack([value.detach().to(torch.float64) for value in values])

    @torch.no_grad()
    def end_step(self, loss: Tensor, gradient_norm: Tensor | None = None) -> None:
        """Count one optimiser step: its loss and the norm of its gradients before clipping.

        Of a step where either is not finite nothing but that is counted.
        """
        norm = loss.new_zeros(()) if gradient_norm is None else gradient_norm
        both = torch.stack([loss.detach(), norm]).to(torch.float64)
        finite = both.isfinite().all()
        if self.counts_steps:
            self.step_sums[0] += both[0]
            self.step_sums[-2] += both[1]
            self.steps += 1
            self.sums[-1] += ~finite
        self.sums += self.step_sums.where(finite, 0.0)
        self.step_sums.zero_()

    def reset(self) -> None:
        self.sums.zero_()
        self.histogram.zero_()
        self.steps = self.tokens = self.slots = self.pairs = 0

    def compute(self) -> dict[str, float]:
        """Means over what was counted, the only synchronisation; NaN for rates of nothing (no fakes, no masks)."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        original, fake = self.histogram.cpu().view(2, BINS)
        taken = self.steps - sums["skipped_steps"]
        return {
            "loss": _ratio(sums["loss"], taken),
            "generator_loss": _ratio(sums["generator_loss"], sums["generator_count"]),
            "generator_accuracy": _ratio(sums["generator_correct"], sums["slots_count"]),
            "sampled_accuracy": _ratio(sums["sampled_correct"], sums["slots_count"]),
            **discriminator_metrics(original, fake, _ratio(sums["discriminator_loss"], sums["discriminator_count"])),
            "gradient_norm": _ratio(sums["gradient_norm"], taken),
            "skipped_steps": round(sums["skipped_steps"]),
            "padding": 1.0 - _ratio(self.tokens, self.slots),
        }

    def over(self, ranks: Ranks) -> RunningMetrics:
        """What all processes have counted together; a call of all of them. With one process, these metrics."""
        if ranks.size == 1:
            return self
        total = RunningMetrics(self.sums.device)
        ranks.sum_(total.sums.copy_(self.sums))
        ranks.sum_(total.histogram.copy_(self.histogram))
        counts = torch.tensor([getattr(self, name) for name in _COUNTS], device=self.sums.device)
        for name, count in zip(_COUNTS, ranks.sum_(counts).tolist(), strict=True):
            setattr(total, name, count)
        return total

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self.sums.cpu().clone(),
            "histogram": self.histogram.cpu().to_sparse(),
            **{name: getattr(self, name) for name in _COUNTS},
        }

    def load_state_dict(self, *states: dict[str, Any]) -> None:
        """Go on from what the metrics with these `state_dict`s had counted together."""
        self.reset()
        for state in states:
            if len(state["sums"]) != len(_SUMS):  # an older version's: what it had counted since its report is left out
                continue
            self.sums += state["sums"].to(self.sums.device)
            self.histogram += state["histogram"].to_dense().to(self.sums.device)
            for name in _COUNTS:
                setattr(self, name, getattr(self, name) + state.get(name, 0))


def discriminator_metrics(original: Tensor, fake: Tensor, loss: float) -> dict[str, float]:
    """Figures of a binary classifier from the histograms of its logits, int64 ``[BINS]``; logits > 0 say "fake"."""
    half = original.shape[0] // 2
    originals, fakes = int(original.sum()), int(fake.sum())
    found, alarms = int(fake[half:].sum()), int(original[half:].sum())
    rate = _ratio(fakes, originals + fakes)
    entropy = binary_entropy(rate)
    return {
        "discriminator_loss": loss,
        "fake_rate": rate,
        "entropy": entropy,
        "loss_minus_entropy": loss - entropy,
        "auc": histogram_auc(original, fake),
        "precision": _ratio(found, found + alarms),
        "recall": _ratio(found, fakes),
        "accuracy": _ratio(originals - alarms + found, originals + fakes),
    }


def histogram_auc(negative: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties (one bin) counted half."""
    pairs = int(negative.sum()) * int(positive.sum())
    negative, positive = negative.to(torch.float64), positive.to(torch.float64)
    below = negative.cumsum(0) - negative
    return _ratio(float((positive * (below + negative / 2)).sum()), pairs)


def binary_entropy(rate: float) -> float:
    """``-r ln r - (1-r) ln(1-r)`` nats."""
    if math.isnan(rate):
        return math.nan
    return -sum(p * math.log(p) for p in (rate, 1.0 - rate) if p > 0.0)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
