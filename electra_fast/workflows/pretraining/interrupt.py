"""Ctrl-C and SIGTERM as a wish to stop: the step at hand is finished and saved first; a second signal ends at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Context in which the first SIGINT or SIGTERM only sets ``signal`` (its number); the second acts as if unhandled.

    Outside the main thread, where Python allows no handlers, signals keep their usual effect.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        os.write(2, b"\nfinishing this step and saving a checkpoint; once more to exit at once\n")
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
