"""What a run shows: a progress bar with the figures that matter on a terminal, elsewhere a line for each report."""

from __future__ import annotations

import sys
import time
from typing import Any

_REFRESH_SECONDS = 0.5
_CLEARLY = 0.99
_ABOVE_CHANCE = 0.55


class Display:
    """Progress of a run on stderr.

    On a terminal, a bar that is redrawn at most twice a second, from the training thread: a redrawing thread of its own
    would compete with the step for the interpreter. Elsewhere, or without rich, one line for each report.

    Args:
        shown: False for all processes of a run but one: nothing is shown.
    """

    def __init__(self, step: int, total: int, shown: bool = True) -> None:
        self._shown = shown
        self._start = self._done = step
        self._total = total
        self._began = time.monotonic()
        self._drawn = 0.0
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            self._open_bar(step)

    def _open_bar(self, step: int) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn
        except ImportError:
            return
        columns = (
            TextColumn("step {task.completed:,}/{task.total:,}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[figures]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._task = self._bar.add_task("", total=self._total, completed=step, left="?", figures="")
        self._bar.start()
        self._bar.console.show_cursor(True)  # so that an exit at once leaves none hidden

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._shown:
            return
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int) -> None:
        """A step is done; cheap enough for every step."""
        self._done = step
        if self._bar is not None and (now := time.monotonic()) - self._drawn > _REFRESH_SECONDS:
            self._drawn = now
            self._bar.update(self._task, completed=step, left=self._left(step), refresh=True)

    def show(self, figures: str) -> None:
        """What stands beside the bar; nothing without one."""
        if self._bar is not None:
            self._bar.update(self._task, figures=figures)

    def report(self, record: dict[str, Any]) -> None:
        """New figures of training or evaluation."""
        figures = describe(record)
        if record["split"] == "validation":
            self.say(f"step {record['step']:,}, held out: {figures}")
        elif self._bar is not None:
            self._bar.update(self._task, figures=figures)
        else:
            self.say(f"step {record['step']:,}/{self._total:,}, {self._left(record['step'])} left: {figures}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, left=self._left(self._done), refresh=True)
            self._bar.stop()

    def _left(self, step: int) -> str:
        done = step - self._start
        if done <= 0:
            return "?"
        return clock((time.monotonic() - self._began) / done * (self._total - step))


def describe(record: dict[str, Any]) -> str:
    """Loss, the discriminator's loss less that of chance, AUC, speed and MFU, in one line.

    Chance is knowing the share of fake tokens and nothing else: the entropy of the fake rate.
    """
    shown = (
        ("loss", "loss {:.3f}"),
        ("loss_minus_entropy", "disc. loss vs chance {:+.3f}"),
        ("auc", "AUC {:.3f}"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("mfu", "MFU {:.0%}"),
    )
    return "  ".join(form.format(record[name]) for name, form in shown if record.get(name) is not None)


def clock(seconds: float) -> str:
    """A duration as 4:05 or 2:03:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def verdict(figures: dict[str, Any]) -> str:
    """In plain words, whether the discriminator finds the fake tokens."""
    loss, entropy, auc = (figures[name] for name in ("discriminator_loss", "entropy", "auc"))
    if loss is None:
        return (
            f"There is no discriminator. The masked language model's loss is {figures['generator_loss']:.3f}, and its "
            f"first guess at a masked token is right {figures['generator_accuracy']:.1%} of the time."
        )
    if None in (loss, entropy, auc):
        return "There were too few fake tokens to tell whether the discriminator is learning."
    known = (
        f"its loss is {loss:.3f}, where knowing only the share of fake tokens ({figures['fake_rate']:.1%}) gives "
        f"{entropy:.3f}, and its AUC is {auc:.3f}"
    )
    if loss < _CLEARLY * entropy and auc > _ABOVE_CHANCE:
        return f"The discriminator is learning: {known}."
    if auc > _ABOVE_CHANCE:
        return f"The discriminator is beginning to learn: {known}. Fakes rank above originals, not surely enough yet."
    return (
        f"The discriminator is not learning yet: {known}. That is usual for the first hundreds of steps. "
        "If not, train longer, mask more (mask_probability) or use a smaller generator (generator_hidden_fraction)."
    )
