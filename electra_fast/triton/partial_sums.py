"""The second stage of sums over rows: partial sums of columns, added in a fixed order.

A backward kernel runs as at most `MOST_PARTIALS` programs, each of which adds up its own rows in registers and writes
one row of partial sums; the programs here add those rows. Neither stage uses atomics, so the result is the same from
run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch

MOST_PARTIALS = 512  # programs of 4 warps: four on each of 128 multiprocessors, and 1 % of the traffic at 65536 rows


@triton.jit(do_not_specialize=["partials"])
def column_sums_kernel(
    sums, first, second, third, partials, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Program (i, j): columns ``i·BLOCK_N …`` of the j-th of up to three outputs."""
    which = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = column < columns
    sums += which.to(tl.int64) * partials * columns
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for begin in range(0, partials, BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        mask = (row < partials)[:, None] & inside[None, :]
        total += tl.load(sums + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
    result = tl.sum(total, 0)
    if which == 0:
        tl.store(first + column, result.to(first.dtype.element_ty), mask=inside)
    if second is not None:
        if which == 1:
            tl.store(second + column, result.to(second.dtype.element_ty), mask=inside)
    if third is not None:
        if which == 2:
            tl.store(third + column, result.to(third.dtype.element_ty), mask=inside)


def partial_count(blocks: int) -> int:
    """How many programs share ``blocks`` blocks of rows: as many as there are, at most `MOST_PARTIALS`, at least 1."""
    return max(1, min(blocks, MOST_PARTIALS))


def sum_columns(sums: Tensor, *outputs: Tensor) -> None:
    """``outputs[j] [N] = sums[j] [P, N]`` added up over P, for one to three outputs of any float dtype."""
    _, partials, columns = sums.shape
    c = configuration("column_sums", sums.device)
    first, second, third = (*outputs, None, None)[:3]
    grid = (divide_up(columns, c.block_n), len(outputs))
    launch(column_sums_kernel, c, grid, (sums, first, second, third), (partials,), (columns, c.block_m, c.block_n))


def workspace(outputs: int, partials: int, columns: int, device: torch.device) -> Tensor:
    """Uninitialised float32 ``[outputs, partials, columns]``."""
    return torch.empty((outputs, partials, columns), dtype=torch.float32, device=device)
