"""What a run records as it goes: ``metrics.jsonl``, and the same figures wherever else they were asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_fast.files import write_text

from .layout import METRICS_NAME
from .writers import JsonLinesWriter, Writer


class Journal:
    """Appends records to ``metrics.jsonl`` and hands them to the other writers.

    Args:
        directory: of the run.
        step: where the run (re)starts: records of later steps, which it is going to write again, are removed, and so is
            a line that a killed process left unfinished.
        others: writers besides that of the file; closed together with it.
        writes: False for all processes of a run but one, whose records are the same: they are only remembered.

    Attributes:
        last: the newest record of each split.
    """

    def __init__(self, directory: Path, step: int, others: Sequence[Writer] = (), writes: bool = True) -> None:
        path = directory / METRICS_NAME
        self.last: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = [record for record in read_records(path) if record["step"] <= step]
            self.last = {record["split"]: record for record in kept}
            if writes:
                write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._writers: tuple[Writer, ...] = (JsonLinesWriter(path), *others) if writes else ()

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Append one record: ``step``, ``split`` ("train" or "validation") and figures; returns it with NaN as None."""
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.last[record["split"]] = record
        for writer in self._writers:
            writer.write(record)
        return record

    def sync(self) -> None:
        """Make everything written so far durable, before a checkpoint says that these steps are done."""
        for writer in self._writers:
            writer.sync()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; an unfinished last line is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
