"""What single rows count in the loss: a column of the training data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from electra_fast.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

WEIGHT = "weight"  # of examples and of rows


def read_weights(table: Dataset, path: str | Path, column: str | None) -> dict[str, list[float]]:
    """``{"weight": …}`` of a table with such a column, else nothing: held-out data need none.

    Raises:
        DataError: a value is no number above 0; names the row.
    """
    if column is None or column not in table.column_names:
        return {}
    weights = []
    for row, value in enumerate(table[column], 1):
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = math.nan
        if not (weight > 0 and math.isfinite(weight)):
            raise DataError(f"{path}, row {row}: the weight must be a number above 0, got {value!r}")
        weights.append(weight)
    return {WEIGHT: weights}


def check_weights(train: Dataset, column: str | None) -> None:
    """DataError if the training data lack the column that was asked for."""
    if column is not None and WEIGHT not in train.column_names:
        raise DataError(f"the training data have no column {column!r} (weight_column)")
