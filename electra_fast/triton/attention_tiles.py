"""What the kernels of attention share: which rows a program works on, and blocks of keys or queries.

**Tiles.** Packed rows are cut into tiles of at most ``ROWS`` that never span two sequences: sequence ``b`` owns the
tiles from ``cu_seqlens[b] // ROWS + b`` on. Those are enough for its ``ceil(length / ROWS)``, since the next sequence's
first tile is at least ``length // ROWS + 1`` further. So ``total // ROWS + B + 1`` programs serve any lengths, with no
bound of a sequence's length and no table made beforehand; what is left over ends at once. The rows behind the last
sequence are treated as one more that has no counterpart (no keys, or no queries), which gives them their zeros.

**Head dimensions.** A tile's last dimension is the next power of two, at least 16 (the least that `tl.dot` takes).
So 96 is computed as 128, with a third more products but no more memory traffic, in which these kernels spend their
time at ELECTRA's lengths. Splitting it into 64 + 32 would double every operand and product of the kernels for a
dimension that no ELECTRA has.

**The order of keys.** A thread holds of each row of a product runs of RUN neighbouring columns, one run in RUN · LANES.
Were the columns of the scores consecutive keys, it would need a few bytes of many Philox calls, each made by LANES
threads again. The sum over keys has no order, so keys are loaded such that a thread's columns are consecutive keys, and
each thread makes the calls it needs, and nobody else does. (Which keys dropout keeps does not depend on this.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import configurations
from .random import keep_tile

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


def tiles(total: int, batch: int, rows: int) -> int:
    """Programs that cover ``total`` packed rows of ``batch`` sequences and the padding behind them."""
    return total // rows + batch + 1


def columns_of_thread(device: torch.device) -> tuple[int, int]:
    """(RUN, LANES), how a product's columns lie in threads: NVIDIA's mma and wgmma, AMD's transposed 32 x 32 mfma."""
    amd = configurations.architecture(device).startswith("gfx")
    return (4, 2) if amd else (2, 4)


@triton.jit
def find_tile(cu_seqlens, batch, total, ROWS: tl.constexpr):
    """(sequence, its first packed row, its length, the tile's first row within it) of this program.

    ``sequence == batch``: padding. The tile is empty where its first row is not below the length.
    """
    tile = tl.program_id(0)
    before = tile * 0  # sequences whose first tile is not behind this one
    for first in range(0, batch + 1, 256):
        b = first + tl.arange(0, 256)
        start = tl.load(cu_seqlens + b, mask=b <= batch, other=0)
        before += tl.sum(((start // ROWS + b <= tile) & (b <= batch)).to(tl.int32), 0)
    sequence = before - 1
    start = tl.load(cu_seqlens + sequence)
    end = tl.load(cu_seqlens + sequence + 1, mask=sequence < batch, other=total)
    return sequence, start, end - start, (tile - (start // ROWS + sequence)) * ROWS


@triton.jit
def find_counterpart(cu_seqlens, sequence, batch):
    """(first packed row, length) of the sequence on the other side; length 0 for padding."""
    start = tl.load(cu_seqlens + sequence)
    return start, tl.load(cu_seqlens + sequence + 1, mask=sequence < batch, other=start) - start


@triton.jit
def at(x, row, head, row_stride, head_stride):
    """Address of one head of a packed row."""
    return x + tl.cast(row, tl.int64) * row_stride + tl.cast(head, tl.int64) * head_stride


@triton.jit
def key_of_column(KEYS: tl.constexpr, RUN: tl.constexpr, LANES: tl.constexpr):
    """Which key of a block of KEYS each column of the scores stands for."""
    column = tl.arange(0, KEYS)
    return column // RUN % LANES * (KEYS // LANES) + column // (RUN * LANES) * RUN + column % RUN


@triton.jit
def columns_below(limit, KEYS: tl.constexpr, RUN: tl.constexpr, LANES: tl.constexpr):
    """``key_of_column < limit``, bool ``[1, KEYS]``, or ``[R, KEYS]`` for limits ``[R, 1]``.

    A thread's columns differ from its first by constants: compared apart, they need no register each.
    """
    column = tl.arange(0, KEYS)[None, :]
    return column // (RUN * LANES) * RUN + column % RUN < limit - column // RUN % LANES * (KEYS // LANES)


@triton.jit
def keep_columns(
    seed, step, site, rows, first_key, threshold, KEYS: tl.constexpr, RUN: tl.constexpr, LANES: tl.constexpr
):
    """Which probabilities of a block dropout keeps, bool ``[R, KEYS]``, in the order of `key_of_column`."""
    keep = keep_tile(seed, step, site, rows, first_key // 16, threshold, KEYS // 16)
    keep = tl.reshape(keep, (rows.shape[0], LANES, KEYS // (RUN * LANES), RUN))
    return tl.reshape(tl.permute(keep, (0, 2, 1, 3)), (rows.shape[0], KEYS))


@triton.jit
def load_rows(x, row_stride, first, row, end, DIM: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Rows ``first + row [R]`` behind ``x``, ``[R, WIDTH]``. Zeros stand for rows from ``end`` on (WHOLE: there are
    none) and for columns from ``DIM`` on, whatever lies in memory there.

    In a loop only ``first`` should change: pointers carried from turn to turn would fill the registers.
    """
    column = tl.arange(0, WIDTH)
    tile = x + tl.cast(first, tl.int64) * row_stride + (row[:, None] * row_stride + column[None, :])
    real = column[None, :] < DIM
    if WHOLE:
        if DIM == WIDTH:
            loaded = tl.load(tile)
        else:
            loaded = tl.load(tile, mask=real, other=0.0)
    else:
        loaded = tl.load(tile, mask=(first + row[:, None] < end) & real, other=0.0)
    return loaded


@triton.jit
def store_rows(x, value, row_stride, first, row, end, DIM: tl.constexpr):
    """Store what `load_rows` would load."""
    column = tl.arange(0, value.shape[1])
    tile = x + tl.cast(first, tl.int64) * row_stride + (row[:, None] * row_stride + column[None, :])
    tl.store(tile, value.to(x.dtype.element_ty), mask=(row[:, None] < end - first) & (column[None, :] < DIM))
