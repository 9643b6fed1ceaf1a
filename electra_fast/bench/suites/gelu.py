"""Exact GELU of a sum with a bias: between the two products of a feed-forward block."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops
from electra_fast.bench.case import Case

from .op import BYTES, DTYPES, TOLERANCE, Function, compiled, contender, ours


def _torch(dropout: float) -> Function:
    return lambda x, bias: F.gelu(x + bias)


def _ours(dropout: float) -> Function:
    return lambda x, bias: ops.gelu(x, bias)


def _inputs(rows: int, columns: int, dtype: torch.dtype, device: str, backward: bool) -> tuple[Tensor, ...]:
    x = torch.randn(rows, columns, device=device, dtype=dtype)
    bias = torch.randn(columns, device=device, dtype=dtype)
    if not backward:
        return x, bias
    return x.requires_grad_(), bias.requires_grad_(), torch.randn_like(x)


def cases(device: str) -> list[Case]:
    """The widths of small's and base's feed-forward blocks."""
    rows = 32768 if device.startswith("cuda") else 8192
    found = []
    for columns, dtype, backward in itertools.product((1024, 3072), DTYPES, (True, False)):
        direction = "forward+backward" if backward else "forward"
        found.append(
            Case(
                suite="gelu",
                name=f"{rows}x{columns} {dtype} {direction}",
                dtype=dtype,
                contenders=(
                    contender("torch", _torch, backward=backward, setting="add, F.gelu"),
                    *ours(_ours, device=device, backward=backward),
                    compiled("torch.compile", _torch, backward=backward),
                ),
                inputs=lambda shared, c=columns, d=dtype, b=backward: _inputs(rows, c, DTYPES[d], device, b),
                device=device,
                shape={"rows": rows, "columns": columns, "direction": direction},
                bytes=float(BYTES[dtype]) * rows * columns * (5 if backward else 2),  # x, y; x, gradient, dx
                tokens=rows,
                tolerance=TOLERANCE[dtype],
                cold=True,
                level=("quick" if dtype == "float32" else "default") if backward and columns == 1024 else "full",
            )
        )
    return found
