"""How long a run trained, apart from what it does between steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any


class Clock:
    """Seconds of training, evaluation and writing, apart; those before an interruption are taken along."""

    def __init__(self) -> None:
        self._spent = {"train": 0.0, "evaluation": 0.0, "writing": 0.0}
        self._began = self._aside = 0.0

    def start(self, history: Sequence[dict[str, Any]]) -> None:
        self._began, self._aside = time.perf_counter(), 0.0
        for entry in history:
            if "train_seconds" in entry:
                self._spent = {name: entry[f"{name}_seconds"] for name in self._spent}

    @property
    def training(self) -> float:
        return self._spent["train"] + time.perf_counter() - self._began - self._aside

    def seconds(self) -> dict[str, float]:
        return {f"{name}_seconds": value for name, value in {**self._spent, "train": self.training}.items()}

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Time that is not training's."""
        began = time.perf_counter()
        yield
        passed = time.perf_counter() - began
        self._spent[name] += passed
        self._aside += passed
