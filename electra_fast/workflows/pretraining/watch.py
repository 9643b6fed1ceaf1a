"""Watching the loss: steps whose loss or gradients are not finite, and losses that jump."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from electra_fast.errors import DivergenceError

MOST_SKIPPED = 10  # steps in a row, after which no update was taken for so long that none is to be expected
_WINDOW = 100  # losses that a jump is measured against
_ENOUGH = 30  # before so many nothing is called a jump
_SPREADS = 6.0  # above the median; of a normal distribution once in a thousand million steps
_LEAST = 0.02  # of the median: smaller jumps are none, however little the loss varies
_MAD = 1.4826  # times the median absolute deviation is a normal distribution's standard deviation


class LossWatch:
    """Looks at every step's loss and gradient norm: at once on the CPU; on a GPU, where looking means waiting, at the
    next report or checkpoint.

    A loss is said to jump when it is more than 6 robust standard deviations above the median of the 100 before, and
    then not again until it has come down. No update is made in a step that is not finite, whatever the choice here.

    Args:
        on_nonfinite: "stop" at the first such step, or "skip" it, and stop after `MOST_SKIPPED` in a row.
        newest: path of the newest checkpoint, or None.
    """

    def __init__(self, device: torch.device, on_nonfinite: str, newest: Callable[[], object | None]) -> None:
        self._at_once = device.type == "cpu"
        self._skip = on_nonfinite == "skip"
        self._newest = newest
        self._unseen: list[tuple[int, Tensor]] = []
        self._said: list[str] = []
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._high = False
        self._spikes = 0
        self._skipped = 0  # in a row

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take in one step. DivergenceError as `check`, on the CPU."""
        self._unseen.append((step, torch.stack([loss, norm])))
        if self._at_once:
            self._look()

    def check(self) -> list[str]:
        """What was noticed since the last call, in words.

        Raises:
            DivergenceError: a step was not finite, and it or as many before it that the run is to stop.
        """
        self._look()
        said, self._said = self._said, []
        return said

    def spikes(self) -> int:
        """Jumps since the last call; `check` first."""
        spikes, self._spikes = self._spikes, 0
        return spikes

    def _look(self) -> None:
        unseen, self._unseen = self._unseen, []
        for step, values in unseen:
            loss, norm = values.tolist()
            if math.isfinite(loss) and math.isfinite(norm):
                self._skipped = 0
                self._compare(step, loss)
            else:
                self._not_finite(step, loss, norm)

    def _not_finite(self, step: int, loss: float, norm: float) -> None:
        what = f"the loss of step {step} is {loss}"
        if math.isfinite(loss):
            what = f"the gradients of step {step} are not finite (norm {norm})"
        self._skipped += 1
        if self._skip and self._skipped < MOST_SKIPPED:
            self._said.append(f"{what}: skipped, the weights are as they were")
            return
        newest = self._newest()
        good = "no checkpoint was due before" if newest is None else f"the last good checkpoint is {newest}"
        many = f", after {self._skipped - 1} such steps that were skipped" if self._skipped > 1 else ""
        raise DivergenceError(
            f"{what}{many}; {good}. Lower learning_rate, lengthen warmup_steps, or, in bf16, use --precision fp32"
        )

    def _compare(self, step: int, loss: float) -> None:
        if len(self._recent) >= _ENOUGH:
            usual = statistics.median(self._recent)
            spread = _MAD * statistics.median(abs(value - usual) for value in self._recent)
            high = loss > usual + max(_SPREADS * spread, _LEAST * abs(usual))
            if high and not self._high:
                self._spikes += 1
                self._said.append(
                    f"the loss jumped to {loss:.3f} in step {step} from {usual:.3f}, the median before it"
                )
            self._high = high
        self._recent.append(loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values; `check` first."""
        return {
            "recent": list(self._recent),
            "high": self._high,
            "spikes": self._spikes,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recent.extend(state["recent"])
        self._high, self._spikes, self._skipped = state["high"], state["spikes"], state["skipped"]
