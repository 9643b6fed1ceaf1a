"""Rows of different length to one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # a label that no loss is computed for


def pad_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], pad_id: int) -> dict[str, Tensor]:
    """Tensors of the columns that the rows have, and ``attention_mask``; all on the CPU.

    Args:
        rows: lists of tokens are padded on the right to the longest: ``input_ids`` with ``pad_id``, ``labels`` with
            -100, others with 0. Numbers become a vector. Whole numbers are int64, others float32.

    Returns:
        ``{name: [rows, longest] or [rows]}``.
    """
    lengths = np.array([len(row["input_ids"]) for row in rows])
    batch = {
        name: _column([row[name] for row in rows], {"input_ids": pad_id, "labels": IGNORED}.get(name, 0))
        for name in columns
        if name in rows[0]
    }
    batch["attention_mask"] = torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64))
    return batch


def _column(values: Sequence[Any], fill: int) -> Tensor:
    if isinstance(values[0], (list, tuple, np.ndarray)):
        length = max(len(value) for value in values)
        kind = np.asarray(values[0]).dtype.kind
        padded = np.full((len(values), length), fill, np.float32 if kind == "f" else np.int64)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return torch.from_numpy(padded)
    array = np.asarray(values)
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
