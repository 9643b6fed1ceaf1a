"""Progress bars of the commands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from electra_fast.data import PrepareProgress

_STAGES = {"reading": "reading the text", "training": "training the tokenizer", "tokenising": "text to tokens"}


@contextlib.contextmanager
def preparing(console: Console) -> Iterator[Callable[[PrepareProgress], None]]:
    """A listener for `electra_fast.data.prepare` that shows bytes read, tokens/s and time left, and prints notes."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]:>18}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _PrepareBars(bars)


class _PrepareBars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stage = ""
        self._task = TaskID(0)
        self._began = 0.0
        self._tokens_before = 0

    def __call__(self, event: PrepareProgress) -> None:
        if event.stage == "note":
            self._bars.console.print(event.message, markup=False, highlight=False, soft_wrap=True)
            return
        if event.stage != self._stage:
            if self._stage:
                self._bars.remove_task(self._task)
            self._stage = event.stage
            self._began = time.monotonic()
            self._tokens_before = event.tokens
            # The length of training is not known: a bar without an end.
            total = None if event.stage == "training" else event.bytes_total
            self._task = self._bars.add_task(_STAGES[event.stage], total=total, completed=event.bytes_done, rate="")
        seconds = time.monotonic() - self._began
        tokens = event.tokens - self._tokens_before
        rate = f"{tokens / seconds:,.0f} tokens/s" if tokens and seconds else ""
        self._bars.update(self._task, completed=event.bytes_done, rate=rate)
