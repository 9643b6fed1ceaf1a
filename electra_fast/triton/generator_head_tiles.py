"""What the kernels of generator_head share: tiles of matrices and of logits, and how a long loop is cut into parts.

Logits are kept times log2 e, since exponentials and logarithms are those of base 2.
"""

from __future__ import annotations

import functools

import triton
import triton.language as tl

from .launch import divide_up

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
UNUSED: tl.constexpr = tl.constexpr(-100)

FLOAT16_PEAK = 2**14  # what float16 (at most 65504) stores gradients times, of which none is larger than 1

PROGRAMS_AT_ONCE = 264  # two on each multiprocessor of an H100, whatever the device: parts depend on shapes alone
MOST_PARTS = 64


@functools.cache
def steps_per_part(programs: int, steps: int) -> int:
    """Into how long parts a loop of ``steps`` is cut that ``programs`` programs would go alone: those that take the
    fewest steps one after another, half a step being what it costs to begin a part. From shapes alone, so that sums
    are made in the same order on every GPU."""

    def cost(each: int) -> int:
        return divide_up(programs * divide_up(steps, each), PROGRAMS_AT_ONCE) * (2 * each + 1)

    return min({divide_up(steps, parts) for parts in range(1, min(steps, MOST_PARTS) + 1)}, key=lambda n: (cost(n), -n))


@triton.jit
def load_tile(x, row, rows, first, FEATURES: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Rows ``row … row + ROWS`` and features ``first … first + BLOCK_K`` of ``x [rows, FEATURES]``; zeros for what is
    not there. Only the first element's place needs 64 bits."""
    inside, feature = tl.arange(0, ROWS), first + tl.arange(0, BLOCK_K)
    mask = (row + inside < rows)[:, None]
    if FEATURES % BLOCK_K != 0:
        mask &= (feature < FEATURES)[None, :]
    place = x + tl.cast(row, tl.int64) * FEATURES + (inside[:, None] * FEATURES + feature[None, :])
    return tl.load(place, mask=mask, other=0.0)


@triton.jit
def load_bias(bias, column, columns):
    """bias · log2 e; -inf for columns behind the vocabulary, which so drop out of every sum and maximum."""
    return tl.load(bias + column, mask=column < columns, other=float("-inf")).to(tl.float32) * LOG2_E


@triton.jit
def logits_tile(
    hidden,
    weight,
    bias,
    slot,
    slots,
    column,
    columns,
    FEATURES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Logits · log2 e of the slots from ``slot`` on and the columns from ``column`` on."""
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, FEATURES, BLOCK_K):
        h = load_tile(hidden, slot, slots, first, FEATURES, BLOCK_M, BLOCK_K)
        w = load_tile(weight, column, columns, first, FEATURES, BLOCK_N, BLOCK_K)
        product = tl.dot(h, tl.trans(w), product, input_precision="ieee")
    return product * LOG2_E + load_bias(bias, column + tl.arange(0, BLOCK_N), columns)[None, :]


@triton.jit
def load_slots(grad, targets, lse, slot, slots):
    """(target, grad, lse times log2 e) of ``slot [M]``; unused ones: -100, 0, +inf, which make their gradients 0."""
    target = tl.load(targets + slot, mask=slot < slots, other=UNUSED)
    used = target != UNUSED
    grads = tl.load(grad + slot, mask=used, other=0.0)
    return target, grads, tl.load(lse + slot, mask=used, other=float("inf")) * LOG2_E
