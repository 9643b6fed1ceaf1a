"""Backward of generator_head for few features: no gradient of a logit is ever stored.

With d = (softmax - onehot) · grad, ``[slots, columns]``:

    dhidden = d weight        dweight = dᵀ hidden        dbias = column sums of d

`dhidden_kernel` owns a block of slots and goes through (a part of) the vocabulary, `dweight_kernel` owns a block of the
vocabulary and goes through the slots. Each computes the logits it meets again and keeps its sum, all features wide, in
registers; a tile that is read serves both products, as keys and values of attention would if they were the same. That
is 4 products where 3 would do with d stored (generator_head_chunks.py), and worth it while the features are so few that
writing and reading d would take longer than the fourth.

d is rounded to 16 bits as an operand only after the 1 of the target has been taken off: the other order would lose the
gradient of a confident prediction. float16 holds no small numbers: there d is multiplied by a power of two first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import Configuration, configuration
from .generator_head_tiles import FLOAT16_PEAK, LOG2_E, UNUSED, load_bias, load_slots, load_tile, steps_per_part
from .launch import divide_up, launch, power_of_two


@triton.jit(do_not_specialize=["slots", "steps"])
def dhidden_kernel(
    grad,
    hidden,
    weight,
    bias,
    targets,
    lse,
    out,
    slots,
    steps,
    columns,
    FEATURES: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (i, j): dhidden of the i-th block of slots, from tiles ``j·steps …`` of the vocabulary, into ``out[j]``.

    A slot's grad is the same for all columns, so it is multiplied in last: SCALE, a constant, then suits every grad.
    """
    first_slot = tl.program_id(0) * BLOCK_M
    slot = first_slot + tl.arange(0, BLOCK_M)
    part = tl.program_id(1)
    target, grads, lses = load_slots(grad, targets, lse, slot, slots)
    feature = tl.arange(0, BLOCK_K)
    out += part.to(tl.int64) * slots * FEATURES
    place = out + slot.to(tl.int64)[:, None] * FEATURES + feature[None, :]
    mask = (slot < slots)[:, None] & (feature < FEATURES)[None, :]
    if tl.max(target, 0) == UNUSED:
        tl.store(place, tl.zeros((BLOCK_M, BLOCK_K), out.dtype.element_ty), mask=mask)
        return
    h = load_tile(hidden, first_slot, slots, 0, FEATURES, BLOCK_M, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for tile in range(part * steps, tl.minimum((part + 1) * steps, tl.cdiv(columns, BLOCK_N))):
        column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        w = load_tile(weight, tile * BLOCK_N, columns, 0, FEATURES, BLOCK_N, BLOCK_K)
        product = tl.dot(h, tl.trans(w), input_precision="ieee")
        d = tl.exp2(product * LOG2_E + load_bias(bias, column, columns)[None, :] - lses[:, None])
        d = tl.where(column[None, :] == target[:, None], d - 1.0, d) * SCALE
        total = tl.dot(d.to(h.dtype), w, total, input_precision="ieee")
    tl.store(place, (total * (grads / SCALE)[:, None]).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["slots"])
def dweight_kernel(
    grad,
    hidden,
    weight,
    bias,
    targets,
    lse,
    scale,
    dweight,
    dbias,
    slots,
    columns,
    FEATURES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A program per BLOCK_N columns of the vocabulary. Everything transposed, ``[columns, slots]``: d is then already
    the left operand of its second product. scale: one number by which grad is multiplied, or None."""
    first_column = tl.program_id(0) * BLOCK_N
    column = first_column + tl.arange(0, BLOCK_N)
    w = load_tile(weight, first_column, columns, 0, FEATURES, BLOCK_N, BLOCK_K)
    b = load_bias(bias, column, columns)
    total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    sums = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, slots, BLOCK_M):
        slot = first + tl.arange(0, BLOCK_M)
        target, grads, lses = load_slots(grad, targets, lse, slot, slots)
        if scale is not None:
            grads *= tl.load(scale)
        h = load_tile(hidden, first, slots, 0, FEATURES, BLOCK_M, BLOCK_K)
        product = tl.dot(w, tl.trans(h), input_precision="ieee")
        d = tl.exp2(product * LOG2_E + b[:, None] - lses[None, :])
        d = tl.where(column[:, None] == target[None, :], d - 1.0, d) * grads[None, :]
        sums += tl.sum(d, 1)
        total = tl.dot(d.to(h.dtype), h, total, input_precision="ieee")
    if scale is not None:
        total /= tl.load(scale)
        sums /= tl.load(scale)
    feature = tl.arange(0, BLOCK_K)
    mask = (column < columns)[:, None] & (feature < FEATURES)[None, :]
    place = dweight + column.to(tl.int64)[:, None] * FEATURES + feature[None, :]
    tl.store(place, total.to(dweight.dtype.element_ty), mask=mask)
    tl.store(dbias + column, sums.to(dbias.dtype.element_ty), mask=column < columns)


@triton.jit(do_not_specialize=["parts"])
def add_parts_kernel(partials, out, parts, elements, BLOCK: tl.constexpr):
    """``out = partials[0] + partials[1] + …``, in this order."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < elements
    total = tl.load(partials + place, mask=mask)
    for part in range(1, parts):
        total += tl.load(partials + tl.cast(part, tl.int64) * elements + place, mask=mask)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


def backward_by_recomputation(
    inputs: tuple[Tensor, ...],
    scale: Tensor | None,
    gradients: tuple[Tensor, Tensor, Tensor],
    of_dhidden: Configuration,
    of_dweight: Configuration,
) -> None:
    """Fill ``gradients``, dhidden, dweight and dbias. inputs: grad, hidden, weight, bias, targets, lse; at least one
    slot. All contiguous."""
    hidden, weight = inputs[1:3]
    dhidden, dweight, dbias = gradients
    (slots, features), columns = hidden.shape, weight.shape[0]
    width = power_of_two(features, 16)
    c = of_dhidden
    row_blocks, tiles = divide_up(slots, c.block_m), divide_up(columns, c.block_n)
    steps = steps_per_part(row_blocks, tiles)
    parts = divide_up(tiles, steps)
    out = dhidden if parts == 1 else torch.empty((parts, *hidden.shape), dtype=torch.float32, device=hidden.device)
    launch(
        dhidden_kernel,
        c,
        (row_blocks, parts),
        (*inputs, out),
        (slots, steps),
        (columns, features, 1.0 if scale is None else float(FLOAT16_PEAK), c.block_m, c.block_n, width),
    )
    if parts > 1:
        elements = hidden.numel()
        c = configuration("generator_head_add_parts", hidden.device)
        grid = (divide_up(elements, c.block_n),)
        launch(add_parts_kernel, c, grid, (out, dhidden), (parts,), (elements, c.block_n))
    c = of_dweight
    launch(
        dweight_kernel,
        c,
        (divide_up(columns, c.block_n),),
        (*inputs, scale, dweight, dbias),
        (slots,),
        (columns, features, c.block_m, c.block_n, width),
    )
