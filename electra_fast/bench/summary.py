"""What the rows of a case come to: ours against the best of the others, and against the first of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .records import MEASURED, Row


@dataclass(frozen=True)
class Summary:
    """A case in which ours and a peer were measured.

    Attributes:
        rows: all of the case, in the order of its contenders.
        ours: the fastest of ours; peer: the fastest of the others; first: the first peer, what most people use.
    """

    rows: tuple[Row, ...]
    ours: Row
    peer: Row
    first: Row

    @property
    def speedup(self) -> float:
        """Over the best peer; below 1 is slower."""
        return self.peer.median_ms / self.ours.median_ms

    @property
    def speedup_over_first(self) -> float:
        return self.first.median_ms / self.ours.median_ms

    @property
    def memory_ratio(self) -> float | None:
        """Our peak memory over that of the peer that needs least."""
        peers = [row for row in self.rows if not row.ours and row.status == MEASURED]
        theirs = [row.peak_memory_mib for row in peers if row.peak_memory_mib]
        return self.ours.peak_memory_mib / min(theirs) if theirs and self.ours.peak_memory_mib else None


def by_case(rows: list[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of each (suite, case, device), in the order of writing."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.case, row.device), []).append(row)
    return groups


def summarise(rows: list[Row]) -> Summary | None:
    """Of one case; None if ours or all peers were not measured."""
    measured = [row for row in rows if row.status == MEASURED and row.median_ms > 0]
    ours = [row for row in measured if row.ours]
    peers = [row for row in measured if not row.ours]
    if not ours or not peers:
        return None

    def speed(row: Row) -> float:
        return row.median_ms

    return Summary(tuple(rows), min(ours, key=speed), min(peers, key=speed), peers[0])


def summaries(rows: list[Row]) -> list[Summary]:
    """Of all cases that have one."""
    return [s for group in by_case(rows).values() if (s := summarise(group)) is not None]


def geometric_mean(values: list[float]) -> float:
    """Of positive values; 1 of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 1.0


def milliseconds(value: float) -> str:
    """Three digits that matter."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(digits, 4)}f}"
