"""How a run is doing, read from what it has written: also while it runs, and without loading a network."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_fast.data.job import is_at_work
from electra_fast.errors import CheckpointError

from .checkpoint import CheckpointDirectory, step_of
from .config_file import read_config
from .display import verdict
from .journal import read_records
from .layout import CHECKPOINTS_NAME, CONFIG_NAME, METRICS_NAME, SUMMARY_NAME

_BARS = "▁▂▃▄▅▆▇█"
_WAITING = 0.02  # of the time: below, reading keeps up with the steps
_GOOD_GENERATOR = 0.05  # fake tokens of all: what a generator that is right in nearly two of three samples leaves


@dataclass(frozen=True)
class RunStatus:
    """A run at a glance.

    Attributes:
        output: its directory.
        state: "running", "stopped" (resumable) or "finished".
        step, total_steps: optimiser steps reported, and planned.
        seconds: of training so far; seconds_left: at the speed so far, None before the first report.
        checkpoint: step of the newest checkpoint, None before the first.
        reported: seconds since the last report.
        records: of ``metrics.jsonl``.
        verdict: in plain words, whether the discriminator is learning, and what else stands out.
    """

    output: Path
    state: str
    step: int
    total_steps: int
    seconds: float
    seconds_left: float | None
    checkpoint: int | None
    reported: float
    records: tuple[dict[str, Any], ...]
    verdict: tuple[str, ...]

    def last(self, split: str, name: str) -> float | None:
        """The newest figure of that name that has a value."""
        return next((r[name] for r in reversed(self.records) if r["split"] == split and r.get(name) is not None), None)

    def series(self, split: str, name: str) -> list[float]:
        """All figures of that name, in the order of the steps."""
        return [r[name] for r in self.records if r["split"] == split and r.get(name) is not None]


def run_status(output: str | Path) -> RunStatus:
    """Read the state of a run.

    Raises: CheckpointError if there is no run in ``output``.
    """
    output = Path(output)
    if not (output / CONFIG_NAME).is_file():
        raise CheckpointError(f"there is no run in {output}: give the --output of electra-fast pretrain")
    total = int(read_config(output / CONFIG_NAME)["total_steps"])
    metrics = output / METRICS_NAME
    records = tuple(read_records(metrics)) if metrics.is_file() else ()
    step = max((record["step"] for record in records), default=0)
    seconds = max((record["seconds"] for record in records if record.get("seconds") is not None), default=0.0)
    files = CheckpointDirectory(output / CHECKPOINTS_NAME).files()
    state = "running" if is_at_work(output) else "stopped"
    if step >= total and (output / SUMMARY_NAME).is_file():
        state = "finished"
    return RunStatus(
        output,
        state,
        step,
        total,
        seconds,
        seconds / step * (total - step) if step else None,
        step_of(files[-1]) if files else None,
        time.time() - metrics.stat().st_mtime if records else math.nan,
        records,
        tuple(_remarks(records)),
    )


def _remarks(records: Sequence[dict[str, Any]]) -> list[str]:
    newest = {record["split"]: record for record in records}
    figures = newest.get("validation") or newest.get("train")
    if figures is None:
        return ["Nothing has been reported yet."]
    remarks = [verdict(figures)]
    rate = figures.get("fake_rate")
    if rate is not None and rate < _GOOD_GENERATOR:
        remarks.append(
            f"Only {rate:.1%} of the tokens are fake: the generator is so good that little is left to find. Mask more "
            "(mask_probability) or use a smaller generator (generator_hidden_fraction)."
        )
    waiting = newest.get("train", {}).get("data_wait")
    if waiting is not None and waiting > _WAITING:
        remarks.append(
            f"{waiting:.0%} of the time is spent waiting for data: put the corpus on a faster disk, or leave a core to "
            "the thread that reads it (threads)."
        )
    training = newest.get("train", {}).get("discriminator_loss")
    held_out = newest.get("validation", {}).get("discriminator_loss")
    if training is not None and held_out is not None and held_out > 1.15 * training:
        remarks.append(
            f"The discriminator's loss is {held_out:.3f} on held-out text and {training:.3f} in training: it begins to "
            "know the corpus by heart. More text, more dropout or fewer steps help."
        )
    return remarks


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The course of a figure in one line of ``width`` characters at most, from its lowest (▁) to its highest (█) value;
    where there are more values than characters, their means."""
    if not values:
        return ""
    count = min(width, len(values))
    bounds = [len(values) * i // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    low, high = min(means), max(means)
    if high == low:
        return _BARS[3] * count
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in means)
