"""Append-only records: a line of JSON for every run (machine, versions, roof) and for every row measured in it.

Lines are only ever added, each in one write that is flushed to the disk, so that Ctrl-C, a crash or two runs at a time
lose nothing; a last line that was cut off is skipped by the reader and closed by the next writer.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from electra_fast.errors import ElectraError
from electra_fast.files import write_text

NAME = "records.jsonl"

MEASURED, ABSENT, WRONG, FAILED = "measured", "absent", "wrong", "failed"


@dataclass(frozen=True)
class Row:
    """One contender of one case. Times in milliseconds a call; 0 where nothing was measured.

    Attributes:
        status: "measured"; "absent" (not on this machine), "wrong" (another output than the truth: never timed) or
            "failed" (raised), each with the ``reason``.
        error: relative, of the output against the case's first contender.
        gflops, gbytes: the work's rate at the median, in 10^9 a second; share: of the roof of this run.
        peak_memory_mib: growth over what was there before it was built; None where it was not measured.
    """

    run: str
    suite: str
    case: str
    contender: str
    dtype: str
    shape: dict[str, int | float | str] = field(default_factory=dict)
    setting: str = ""
    allocator: str = ""
    ours: bool = False
    status: str = MEASURED
    reason: str = ""
    error: float = 0.0
    median_ms: float = 0.0
    q20_ms: float = 0.0
    q80_ms: float = 0.0
    minimum_ms: float = 0.0
    rounds: int = 0
    calls: int = 0
    bound: str = ""
    gflops: float = 0.0
    gbytes: float = 0.0
    share: float = 0.0
    tokens_per_second: float = 0.0
    peak_memory_mib: float | None = None
    clock_mhz: float = 0.0
    load_average: float = 0.0
    device: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What has to be equal for two rows to be about the same thing."""
        return self.suite, self.case, self.contender, self.device


@dataclass(frozen=True)
class Records:
    """What a file of records holds: runs by their names, and rows in the order of writing."""

    runs: dict[str, dict[str, Any]]
    rows: list[Row]

    def latest(self) -> list[Row]:
        """The rows of each case in the last run (on each device) that had it: ratios are only formed within a run."""
        last = {(row.suite, row.case, row.device): row.run for row in self.rows}
        newest = {row.key: row for row in self.rows if last[row.suite, row.case, row.device] == row.run}
        return list(newest.values())


def path_in(place: str | os.PathLike[str]) -> Path:
    """The records' file: ``place`` itself, or the one in that directory."""
    place = Path(place)
    return place / NAME if place.is_dir() or not place.suffix else place


def append_run(file: Path, name: str, facts: dict[str, Any]) -> None:
    """Add the line of a run; its rows follow."""
    _append(file, [{"kind": "run", "run": name, **facts}])


def append_rows(file: Path, rows: Iterable[Row]) -> None:
    """Add rows."""
    _append(file, [{"kind": "row", **asdict(row)} for row in rows])


def _append(file: Path, lines: list[dict[str, Any]]) -> None:
    if not lines:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = "\n" + text
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(place: str | os.PathLike[str]) -> Records:
    """Everything in a file of records, or in the one of a directory.

    Raises: ElectraError if there is none, or a line is damaged (a last line that was cut off is skipped).
    """
    file = path_in(place)
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise ElectraError(f"there are no records in {file}: measure with electra-fast bench --out {place}") from None
    runs: dict[str, dict[str, Any]] = {}
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            kind = found.pop("kind")
            if kind == "run":
                runs[found.pop("run")] = found
            else:
                rows.append(Row(**found))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if _was_cut_off(line):
                continue
            raise ElectraError(f"line {number} of {file} is not a record ({error}): remove it") from None
    return Records(runs, rows)


def _was_cut_off(line: str) -> bool:
    """Half of a line: one that begins as ours do and has no end."""
    return line.startswith("{"[: len(line)]) and not line.rstrip("\n").endswith("}")


def export_csv(records: Records, file: Path) -> None:
    """All rows with the facts of their runs, for a spreadsheet."""
    names = [name for name in Row.__dataclass_fields__ if name != "shape"]
    facts = ("device", "threads", "capability", "commit", "date")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*names, "shape", *(f"run_{fact}" for fact in facts), "torch"])
    for row in records.rows:
        run = records.runs.get(row.run, {})
        shape = " ".join(f"{name}={value}" for name, value in row.shape.items())
        values = [getattr(row, name) for name in names]
        version = run.get("versions", {}).get("torch", "")
        writer.writerow([*values, shape, *(run.get(fact, "") for fact in facts), version])
    write_text(file, table.getvalue())
