"""Today's medians over an earlier run's: what has become slower than a ratio allows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from electra_fast.errors import ConfigError, ElectraError

from .records import MEASURED, Row

RATIO = 1.10


@dataclass(frozen=True)
class Change:
    """A row that both have; ``ratio`` above 1 is slower than before."""

    row: Row
    before_ms: float
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """``drift``: the median ratio of the peers, which have not changed: how much the machine has."""

    changes: list[Change]
    slower: list[Change]
    drift: float


def compare(rows: list[Row], base: list[Row], ratio: float = RATIO) -> Comparison:
    """Compare measured rows of the same case, contender and device; only ours can be ``slower``.

    Raises: ConfigError for a ratio below 1; ElectraError if the two have no row in common.
    """
    if not ratio >= 1.0:
        raise ConfigError(f"ratio must be at least 1, got {ratio}")
    before = {row.key: row for row in base if row.status == MEASURED}
    changes = [
        Change(row, before[row.key].median_ms, row.median_ms / before[row.key].median_ms)
        for row in rows
        if row.status == MEASURED and row.key in before
    ]
    if not changes:
        raise ElectraError(
            "the records to compare with have no measured case in common with these: same --suite, same device?"
        )
    changes.sort(key=lambda change: -change.ratio)
    drift = statistics.median([change.ratio for change in changes if not change.row.ours] or [1.0])
    return Comparison(changes, [change for change in changes if change.row.ours and change.ratio > ratio], drift)
