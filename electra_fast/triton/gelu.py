"""gelu: ``y = z Φ(z)``, ``dx = grad (Φ(z) + z φ(z))``, ``z = x + bias``, Φ and φ the standard normal distribution.

Bound by memory: forward reads and writes every element once, backward reads two and writes one. dbias is summed in
registers over the rows of a program and over the programs by `sum_columns`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch, on, power_of_two
from .partial_sums import partial_count, sum_columns, workspace


@triton.jit
def normal_cdf(z):
    """Φ(z) and φ(z) in float32, from one exponential.

    For a >= 0, ``Φ(-a) = exp(-a²/2) (1/2 - a P(a)/Q(a))`` with the polynomials of csrc/cpu/kernels/normal_cdf.h (error
    of Φ below 1.1e-7). Unlike ``(1 + erf)/2`` this keeps relative accuracy in the left tail, at half the price of erfc.
    """
    magnitude = tl.abs(z)
    a = tl.minimum(magnitude, 12.5)
    e = tl.where(magnitude <= 12.5, tl.exp2(a * a * -0.721347520), 0.0)  # beyond, Φ(-|z|) < 4e-36 counts as 0
    p = ((0.0154736917 * a + 0.110416427) * a + 0.325285465) * a + 0.398941815
    q = (((0.030948393 * a + 0.245484561) * a + 0.84716022) * a + 1.44201088) * a + 1.0
    tail = e * (0.5 - a * p / q)
    return tl.where(z > 0.0, 1.0 - tail, tail), e * 0.398942280


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(x, bias, y, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Program (i, j): rows ``i·BLOCK_M …``, columns ``j·BLOCK_N …``."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    place = row[:, None].to(tl.int64) * columns + column[None, :]
    z = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        z += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    cdf, _ = normal_cdf(z)
    tl.store(y + place, (z * cdf).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def backward_kernel(
    grad, x, bias, dx, sums, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Program (i, j): every num_programs(0)-th block of rows from the i-th, columns ``j·BLOCK_N …``."""
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = column < columns
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if bias is not None:
        b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_M), tl.num_programs(0)):
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        mask = (row < rows)[:, None] & inside[None, :]
        place = row[:, None].to(tl.int64) * columns + column[None, :]
        z = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
        if bias is not None:
            z += b
        cdf, density = normal_cdf(z)
        g *= cdf + z * density
        tl.store(dx + place, g.to(dx.dtype.element_ty), mask=mask)
        if bias is not None:
            total += g
    if bias is not None:
        tl.store(sums + tl.program_id(0) * columns + column, tl.sum(total, 0), mask=inside)


def forward(x: Tensor, bias: Tensor | None) -> Tensor:
    """y, x's shape and dtype, contiguous."""
    x = x.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = torch.empty_like(x)
    if y.numel() == 0:
        return y
    columns = x.shape[-1] if x.ndim else 1
    rows = x.numel() // columns
    c = configuration("gelu_forward", x.device)
    block_n = min(c.block_n, power_of_two(columns))
    with on(x.device):
        grid = (divide_up(rows, c.block_m), divide_up(columns, block_n))
        launch(forward_kernel, c, grid, (x, bias, y), (rows,), (columns, c.block_m, block_n))
    return y


def backward(grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """dx and dbias (empty without bias)."""
    grad, x = grad.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    if bias is None:
        dbias = x.new_empty(0)
    else:
        bias = bias.contiguous()
        dbias = torch.empty_like(bias) if x.numel() else torch.zeros_like(bias)
    if x.numel() == 0:
        return dx, dbias
    columns = x.shape[-1] if x.ndim else 1
    rows = x.numel() // columns
    c = configuration("gelu_backward", x.device)
    block_n = min(c.block_n, power_of_two(columns))
    blocks = divide_up(rows, c.block_m)
    partials = blocks if bias is None else partial_count(blocks)
    sums = None if bias is None else workspace(1, partials, columns, x.device)
    with on(x.device):
        grid = (partials, divide_up(columns, block_n))
        launch(backward_kernel, c, grid, (grad, x, bias, dx, sums), (rows,), (columns, c.block_m, block_n))
        if sums is not None:
            sum_columns(sums, dbias)
    return dx, dbias
