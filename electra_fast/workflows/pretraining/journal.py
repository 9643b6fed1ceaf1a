"""What a run records as it goes: ``metrics.jsonl``, and the same figures for TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from electra_fast.files import write_text

METRICS_NAME = "metrics.jsonl"


class Journal:
    """Appends records to ``metrics.jsonl``, one JSON object a line, each on its way to the disk when `write` returns.

    Args:
        directory: of the run.
        step: where the run (re)starts: records of later steps, which it is going to write again, are removed, and so is
            a line that a killed process left unfinished.
        tensorboard: also write TensorBoard files under ``tensorboard/``, if it is installed.

    Attributes:
        last: the newest record of each split.
    """

    def __init__(self, directory: Path, step: int, tensorboard: bool = True) -> None:
        path = directory / METRICS_NAME
        self.last: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = [record for record in read_records(path) if record["step"] <= step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
            self.last = {record["split"]: record for record in kept}
        self._stream = open(path, "a", encoding="utf-8")
        self._tensorboard = _summary_writer(directory / "tensorboard", step) if tensorboard else None

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Append one record: ``step``, ``split`` ("train" or "validation") and figures; returns it with NaN as None."""
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.last[record["split"]] = record
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        if self._tensorboard is not None:
            for name, value in record.items():
                if name not in ("step", "split") and value is not None:
                    self._tensorboard.add_scalar(f"{name}/{record['split']}", value, record["step"])
        return record

    def sync(self) -> None:
        """Make everything written so far durable, before a checkpoint says that these steps are done."""
        os.fsync(self._stream.fileno())
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def close(self) -> None:
        self._stream.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; an unfinished last line is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _summary_writer(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None)
