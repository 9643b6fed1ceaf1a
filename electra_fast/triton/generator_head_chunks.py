"""Backward of generator_head for many features: the gradients of a chunk of the vocabulary's logits are stored.

With d = (softmax - onehot) · grad, ``[slots, columns of the chunk]``, of which `gradient_kernel` makes a tile a
program, each logit once, and its column sums; then two plain products (`product_kernel`):

    dhidden += d weight[chunk]        dweight[chunk] = dᵀ hidden        dbias[chunk] = column sums of d

A chunk is as many columns as fit CHUNK_BYTES. Cut along the vocabulary, because then a row of dweight is finished
within its chunk, and only dhidden, the smaller of the two in ELECTRA, is added up from chunk to chunk, in float32.

d is stored in hidden's dtype after the 1 of the target has been taken off: the other order would lose the gradient of a
confident prediction. In float16 it is multiplied by ``scale`` first, which holds no small numbers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import Configuration
from .generator_head_tiles import UNUSED, load_slots, logits_tile
from .launch import divide_up, launch
from .partial_sums import sum_columns

CHUNK_BYTES = 128 << 20


@triton.jit(do_not_specialize=["slots", "columns", "begin"])
def gradient_kernel(
    grad,
    hidden,
    weight,
    bias,
    targets,
    lse,
    scale,
    gradients,
    sums,
    slots,
    columns,
    begin,
    pitch,
    FEATURES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (i, j): a tile of ``gradients [slots, pitch]``, d times scale (None: 1), and of row i of ``sums``, d's
    column sums ``[blocks of slots, columns]``. weight and bias begin with the chunk, at column ``begin``."""
    first_slot, first_column = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    slot, column = first_slot + tl.arange(0, BLOCK_M), first_column + tl.arange(0, BLOCK_N)
    target, grads, lses = load_slots(grad, targets, lse, slot, slots)
    place = gradients + slot.to(tl.int64)[:, None] * pitch + column[None, :]
    sums += tl.program_id(0).to(tl.int64) * columns + column
    if tl.max(target, 0) == UNUSED:
        tl.store(place, tl.zeros((BLOCK_M, BLOCK_N), gradients.dtype.element_ty), mask=(slot < slots)[:, None])
        tl.store(sums, tl.zeros((BLOCK_N,), tl.float32), mask=column < columns)
        return
    logits = logits_tile(
        hidden, weight, bias, first_slot, slots, first_column, columns, FEATURES, BLOCK_M, BLOCK_N, BLOCK_K
    )
    d = tl.exp2(logits - lses[:, None])
    d = tl.where(column[None, :] == (target - begin)[:, None], d - 1.0, d) * grads[:, None]
    tl.store(sums, tl.sum(d, 0), mask=column < columns)
    if scale is not None:
        d *= tl.load(scale)
    tl.store(place, d.to(gradients.dtype.element_ty), mask=(slot < slots)[:, None])


@triton.jit(do_not_specialize=["rows", "depth"])
def product_kernel(
    gradients,
    factor,
    scale,
    previous,
    out,
    rows,
    depth,
    pitch,
    FEATURES: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``out [rows, FEATURES] = previous + gradients factor / scale``, ``factor [depth, FEATURES]``; previous None: 0,
    scale None: 1. gradients ``[·, pitch]``, of which TRANSPOSED takes the columns as rows."""
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    feature = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = feature < FEATURES
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, depth, BLOCK_K):
        step = first + tl.arange(0, BLOCK_K)
        if TRANSPOSED:
            place = gradients + step.to(tl.int64)[:, None] * pitch + row[None, :]
            d = tl.trans(tl.load(place, mask=(step < depth)[:, None], other=0.0))
        else:
            place = gradients + row.to(tl.int64)[:, None] * pitch + step[None, :]
            d = tl.load(place, mask=(row < rows)[:, None], other=0.0)
        place = factor + step.to(tl.int64)[:, None] * FEATURES + feature[None, :]
        f = tl.load(place, mask=(step < depth)[:, None] & real[None, :], other=0.0)
        total = tl.dot(d, f, total, input_precision="ieee")
    if scale is not None:
        total /= tl.load(scale)
    place = row.to(tl.int64)[:, None] * FEATURES + feature[None, :]
    mask = (row < rows)[:, None] & real[None, :]
    if previous is not None:
        total += tl.load(previous + place, mask=mask, other=0.0)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


def chunk_columns(slots: int, columns: int, block: int, bytes_of_element: int) -> int:
    """Columns of a chunk: whole blocks, as many as `CHUNK_BYTES` hold, and no more than even chunks take."""
    most = max(1, CHUNK_BYTES // (slots * bytes_of_element * block))
    chunks = divide_up(divide_up(columns, block), most)
    return divide_up(divide_up(columns, chunks), block) * block


def backward_in_chunks(
    inputs: tuple[Tensor, ...],
    scale: Tensor | None,
    gradients: tuple[Tensor, Tensor, Tensor],
    of_gradient: Configuration,
    of_product: Configuration,
) -> None:
    """Fill ``gradients``, dhidden, dweight and dbias. inputs: grad, hidden, weight, bias, targets, lse; at least one
    slot. All contiguous."""
    grad, hidden, weight, bias, targets, lse = inputs
    dhidden, dweight, dbias = gradients
    (slots, features), columns = hidden.shape, weight.shape[0]
    c, p = of_gradient, of_product
    blocks_of_product = (p.block_m, p.block_n, p.block_k)
    pitch = chunk_columns(slots, columns, max(c.block_n, p.block_m), hidden.element_size())
    blocks, feature_blocks = divide_up(slots, c.block_m), divide_up(features, p.block_n)
    stored = torch.empty((slots, pitch), dtype=hidden.dtype, device=hidden.device)
    added = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device) if pitch < columns else None
    for first in range(0, columns, pitch):
        here = slice(first, min(first + pitch, columns))
        width = here.stop - first
        sums = torch.empty((1, blocks, width), dtype=torch.float32, device=hidden.device)
        launch(
            gradient_kernel,
            c,
            (blocks, pitch // c.block_n),
            (grad, hidden, weight[here], bias[here], targets, lse, scale, stored, sums),
            (slots, width, first),
            (pitch, features, c.block_m, c.block_n, c.block_k),
        )
        sum_columns(sums, dbias[here])
        previous, out = added if first > 0 else None, dhidden if here.stop == columns else added
        launch(
            product_kernel,
            p,
            (feature_blocks, divide_up(slots, p.block_m)),
            (stored, weight[here], scale, previous, out),
            (slots, width),
            (pitch, features, False, *blocks_of_product),
        )
        launch(
            product_kernel,
            p,
            (feature_blocks, divide_up(width, p.block_m)),
            (stored, hidden, scale, None, dweight[here]),
            (width, slots),
            (pitch, features, True, *blocks_of_product),
        )
