"""Sums of rows by id, in a fixed order and without atomics: the gradient of looked-up tables.

The rows come sorted by id, so that equal ids form runs. A program adds up a chunk of consecutive rows, run by run. A
run that begins and ends inside the chunk is complete and written to its place. The chunk's first and last run may go on
in its neighbours: their sums become two rows, in order, of the input of the next level, which is 32 times shorter and
handled by the same kernel, until one chunk holds everything. So every sum is written once, and a long run ([MASK], a
segment) is shared by many programs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch, power_of_two

CHUNK = 64  # at least 4: a level of n rows leaves 2 n / CHUNK


@triton.jit
def store_sum(id, total, word, position, token_type, words, positions, padding_idx, column, COLUMNS: tl.constexpr):
    """Write a sum to the row of ``id`` in the table that it counts: words, then positions, then token types."""
    inside = column < COLUMNS
    value = total.to(word.dtype.element_ty)
    if id < words:
        if id != padding_idx:
            tl.store(word + id.to(tl.int64) * COLUMNS + column, value, mask=inside)
    else:
        if id < words + positions:
            tl.store(position + (id - words).to(tl.int64) * COLUMNS + column, value, mask=inside)
        else:
            row = (id - words - positions).to(tl.int64)
            tl.store(token_type + row * COLUMNS + column, value, mask=inside)


@triton.jit(do_not_specialize=["count", "tokens", "words", "positions", "padding_idx"])
def sums_by_id_kernel(
    rows, ids, order, next_rows, next_ids, word, position, token_type, count, tokens, words, positions, padding_idx,
    COLUMNS: tl.constexpr, LAST: tl.constexpr, CHUNK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program (i, j): chunk i, columns ``j·BLOCK_N …``. With ``order`` the k-th row is ``rows[order[k] % tokens]``."""
    chunk = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = column < COLUMNS
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, count)
    current = tl.load(ids + begin)
    in_first_run = 1
    total = tl.zeros((BLOCK_N,), tl.float32)
    if not LAST:
        first_place = next_rows + 2 * chunk.to(tl.int64) * COLUMNS + column
    for k in range(begin, end):
        id = tl.load(ids + k)
        if order is not None:
            row = tl.load(order + k) % tokens
        else:
            row = tl.cast(k, tl.int64)
        value = tl.load(rows + row * COLUMNS + column, mask=inside, other=0.0)
        if id != current:
            if LAST:
                store_sum(current, total, word, position, token_type, words, positions, padding_idx, column, COLUMNS)
            else:
                if in_first_run != 0:
                    tl.store(first_place, total, mask=inside)
                    tl.store(next_ids + 2 * chunk, current)
                else:
                    store_sum(
                        current, total, word, position, token_type, words, positions, padding_idx, column, COLUMNS
                    )  # fmt: skip
            in_first_run = 0
            current = id
            total = tl.zeros((BLOCK_N,), tl.float32)
        total += value
    if LAST:
        store_sum(current, total, word, position, token_type, words, positions, padding_idx, column, COLUMNS)
    else:
        if in_first_run != 0:  # one run: its sum, and nothing more of the same id
            tl.store(first_place, total, mask=inside)
            tl.store(next_ids + 2 * chunk, current)
            total = tl.zeros((BLOCK_N,), tl.float32)
        tl.store(first_place + COLUMNS, total, mask=inside)
        tl.store(next_ids + 2 * chunk + 1, current)


def sum_by_id(rows: Tensor, ids: Tensor, tables: tuple[Tensor, Tensor, Tensor], padding_idx: int) -> None:
    """Write, for every id that occurs, the sum of its rows into the tables ``[·, E]``; other rows stay as they are.

    rows: float32 ``[T, E]``; ids: int32 ``[3·T]``, word ids, then position ids counted from the number of words, then
    token type ids counted from there. Row ``padding_idx`` of the words is left alone.
    """
    tokens, columns = rows.shape
    words, positions = tables[0].shape[0], tables[1].shape[0]
    ids, order = torch.sort(ids, stable=True)
    c = configuration("sums_by_id", rows.device)
    block_n = min(c.block_n, power_of_two(columns))
    while True:
        count = ids.shape[0]
        chunks = divide_up(count, CHUNK)
        last = chunks == 1
        next_rows = None if last else torch.empty((2 * chunks, columns), dtype=torch.float32, device=rows.device)
        next_ids = None if last else torch.empty(2 * chunks, dtype=torch.int32, device=rows.device)
        launch(
            sums_by_id_kernel,
            c,
            (chunks, divide_up(columns, block_n)),
            (rows, ids, order, next_rows, next_ids, *tables),
            (count, tokens, words, positions, padding_idx),
            (columns, last, CHUNK, block_n),
        )
        if last:
            return
        rows, ids, order = next_rows, next_ids, None
