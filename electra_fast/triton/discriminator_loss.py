"""discriminator_loss: one logit a token and its binary cross-entropy, summed over the rows of a mask.

Bound by memory: forward reads hidden once, backward reads it once and writes its gradient. A row is held by one warp.
The loss and the gradients of weight and bias are added up over the rows of a program in registers and over the programs
by `sum_columns`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import load_parts, load_vector, split, store_parts
from .configurations import configuration
from .launch import divide_up, launch, on
from .partial_sums import partial_count, sum_columns, workspace


@triton.jit
def log1p(x):
    """``log(1 + x)`` for x in [0, 1], to a few roundings of the result (W. Kahan's correction of ``1 + x``)."""
    u = 1.0 + x
    exact = u - 1.0
    return tl.where(exact == 0.0, x, tl.log(u) * (x / tl.where(exact == 0.0, 1.0, exact)))


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    hidden, weight, bias, labels, mask, logits, sums, rows,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: every num_programs(0)-th block of rows from the i-th, their loss in ``sums[i]``."""
    weights = load_vector(weight, COLUMNS, PARTS, BLOCK_N)
    offset = tl.load(bias).to(tl.float32)
    loss = tl.zeros((BLOCK_M,), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_M), tl.num_programs(0)):
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        counted = row < rows
        values = load_parts(hidden + row.to(tl.int64) * COLUMNS, counted, COLUMNS, PARTS, BLOCK_N)
        logit = tl.sum(values[0] * weights[0], 1)
        for part in tl.static_range(1, PARTS):
            logit += tl.sum(values[part] * weights[part], 1)
        logit += offset
        tl.store(logits + row, logit, mask=counted)
        label = tl.load(labels + row, mask=counted, other=0).to(tl.int1)
        if mask is not None:
            counted = counted & tl.load(mask + row, mask=counted, other=0).to(tl.int1)
        value = tl.maximum(logit, 0.0) - tl.where(label, logit, 0.0) + log1p(tl.exp(-tl.abs(logit)))
        loss += tl.where(counted, value, 0.0)
    tl.store(sums + tl.program_id(0), tl.sum(loss, 0))


@triton.jit(do_not_specialize=["rows"])
def backward_kernel(
    grad, hidden, weight, labels, mask, logits, dhidden, weight_sums, bias_sums, rows,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: every num_programs(0)-th block of rows from the i-th; its sums in row i of the two workspaces."""
    weights = load_vector(weight, COLUMNS, PARTS, BLOCK_N)
    scale = tl.load(grad).to(tl.float32)
    dbias = tl.zeros((BLOCK_M,), tl.float32)
    dweight = ()
    for _ in tl.static_range(PARTS):
        dweight = dweight + (tl.zeros((BLOCK_M, BLOCK_N), tl.float32),)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_M), tl.num_programs(0)):
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        real = row < rows
        counted = real
        if mask is not None:
            counted = counted & tl.load(mask + row, mask=real, other=0).to(tl.int1)
        label = tl.load(labels + row, mask=counted, other=0).to(tl.int1)
        logit = tl.load(logits + row, mask=counted, other=0.0)
        slope = scale * (1.0 / (1.0 + tl.exp(-logit)) - tl.where(label, 1.0, 0.0))
        slope = tl.where(counted, slope, 0.0)
        dbias += slope
        begin = row.to(tl.int64) * COLUMNS
        values = load_parts(hidden + begin, counted, COLUMNS, PARTS, BLOCK_N)  # rows not counted may hold anything
        out, total = (), ()
        for part in tl.static_range(PARTS):
            out = out + (slope[:, None] * weights[part],)
            total = total + (dweight[part] + slope[:, None] * values[part],)
        dweight = total
        store_parts(dhidden + begin, real, out, COLUMNS, PARTS, BLOCK_N)
    tl.store(bias_sums + tl.program_id(0), tl.sum(dbias, 0))
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        place = weight_sums + tl.program_id(0) * COLUMNS + column
        tl.store(place, tl.sum(dweight[part], 0), mask=column < COLUMNS)


def forward(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum ``[]`` and the logits ``[T]``, float32."""
    hidden, weight, labels = hidden.contiguous(), weight.contiguous(), labels.contiguous()
    mask = None if mask is None else mask.contiguous()
    rows, columns = hidden.shape
    logits = torch.empty(rows, dtype=torch.float32, device=hidden.device)
    if rows == 0:
        return torch.zeros((), dtype=torch.float32, device=hidden.device), logits
    loss = torch.empty((), dtype=torch.float32, device=hidden.device)
    parts, block_n = split(columns)
    c = configuration("discriminator_loss_forward", hidden.device)
    programs = partial_count(divide_up(rows, c.block_m))
    sums = workspace(1, programs, 1, hidden.device)
    with on(hidden.device):
        launch(
            forward_kernel,
            c,
            (programs,),
            (hidden, weight, bias, labels, mask, logits, sums),
            (rows,),
            (columns, parts, c.block_m, block_n),
        )
        sum_columns(sums, loss)
    return loss, logits


def backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor | None, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dhidden, dweight, dbias; rows outside the mask give zeros whatever they hold."""
    hidden, labels = hidden.contiguous(), labels.contiguous()
    mask = None if mask is None else mask.contiguous()
    rows, columns = hidden.shape
    dhidden = torch.empty_like(hidden)
    dweight, dbias = (torch.zeros(v.shape, dtype=v.dtype, device=v.device) for v in (weight, bias))
    if rows == 0:
        return dhidden, dweight, dbias
    parts, block_n = split(columns)
    c = configuration("discriminator_loss_backward", hidden.device)
    programs = partial_count(divide_up(rows, c.block_m))
    weight_sums, bias_sums = workspace(1, programs, columns, hidden.device), workspace(1, programs, 1, hidden.device)
    with on(hidden.device):
        launch(
            backward_kernel,
            c,
            (programs,),
            (grad, hidden, weight.contiguous(), labels, mask, logits, dhidden, weight_sums, bias_sums),
            (rows,),
            (columns, parts, c.block_m, block_n),
        )
        sum_columns(weight_sums, dweight)
        sum_columns(bias_sums, dbias)
    return dhidden, dweight, dbias
