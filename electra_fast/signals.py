"""Ctrl-C, SIGTERM and SIGUSR1 that wait until the work in hand is in a state worth saving."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGUSR1 is what schedulers send ahead of a time limit (Slurm's --signal); Windows has none.
_DEFERRED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class DeferredSignals:
    """While open, the first SIGINT, SIGTERM or SIGUSR1 is only noted, so that work can stop at a good place.

    From then on all have the effect that they had before: a second one acts at once. Outside the main thread, where
    Python allows no handlers, nothing is changed.

    Args:
        notice: written to stderr when a signal is noted.

    Attributes:
        received: the number of the signal, or None.
    """

    def __init__(self, notice: str = "") -> None:
        self.received: int | None = None
        self._notice = notice.encode()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _DEFERRED:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        os.write(2, self._notice)  # not print(): this may have interrupted one
