"""How a row of N columns is cut for kernels that hold whole rows in registers.

Triton's blocks are powers of two, and one block over 768 columns would leave a quarter of its lanes idle. A row is held
as a tuple of equal blocks instead, 768 as three of 256: with 8 values a thread, a block of 256 is one warp wide, so
that sums over a row stay inside a warp.
"""

from __future__ import annotations

import functools

import triton
import triton.language as tl

MOST_PARTS = 8  # kernels are unrolled over the parts
WIDEST = 256 * 2**4 * MOST_PARTS


@functools.cache
def split(columns: int) -> tuple[int, int]:
    """(parts, block): the cover of ``columns`` by equal blocks that wastes least, and of those the one with blocks
    nearest to 256. Raises ValueError for more than `WIDEST` columns: such rows do not fit in registers."""
    if columns > WIDEST:
        raise ValueError(f"triton kernels over whole rows take at most {WIDEST} columns, got {columns}")
    covers = [(-(-columns // block), block) for block in (2**e for e in range(6, 13))]
    covers = [(parts, block) for parts, block in covers if parts <= MOST_PARTS]
    return min(covers, key=lambda cover: (cover[0] * cover[1], max(cover[1], 256) // min(cover[1], 256)))


@triton.jit
def load_parts(row_pointers, row_mask, COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """The rows at ``row_pointers [R]`` in float32, a tuple of ``[R, BLOCK_N]``; 0 outside."""
    parts = ()
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = row_mask[:, None] & (column < COLUMNS)[None, :]
        parts = parts + (tl.load(row_pointers[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32),)
    return parts


@triton.jit
def load_vector(vector, COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """``vector [COLUMNS]`` in float32, a tuple of ``[1, BLOCK_N]``; 0 outside."""
    parts = ()
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        parts = parts + (tl.load(vector + column, mask=column < COLUMNS, other=0.0).to(tl.float32)[None, :],)
    return parts


@triton.jit
def store_parts(row_pointers, row_mask, values, COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Write a tuple of ``[R, BLOCK_N]`` to the rows at ``row_pointers [R]``, in the pointers' dtype."""
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = row_mask[:, None] & (column < COLUMNS)[None, :]
        tl.store(row_pointers[:, None] + column[None, :], values[part].to(row_pointers.dtype.element_ty), mask=mask)
