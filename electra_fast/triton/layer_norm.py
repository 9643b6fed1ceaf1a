"""layer_norm: ``s = residual + dropout(x + x_bias); y = (s - mean) · rstd · weight + bias``, forward and backward.

Bound by memory. Forward reads x and residual and writes y and s; backward reads grad and s and writes dresidual and,
with dropout, dx: nothing else of the size of x moves, as the mask is drawn again. A row is held by one warp. Backward's
column sums are kept in registers over the rows of a program and added up over the programs by `sum_columns`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import load_parts, load_vector, split, store_parts
from .configurations import ANY, configuration
from .launch import divide_up, launch, on
from .partial_sums import partial_count, sum_columns, workspace
from .random import dropout_arguments, keep_tile, load_state


@triton.jit
def mean_and_rstd(parts, eps, COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Mean ``[R]``, 1/√(variance + eps) ``[R]`` and the centred rows (0 outside), in two passes over registers."""
    total = tl.sum(parts[0], 1)
    for part in tl.static_range(1, PARTS):
        total += tl.sum(parts[part], 1)
    mean = total / COLUMNS
    centred = ()
    squares = tl.zeros_like(mean)
    for part in tl.static_range(PARTS):
        inside = part * BLOCK_N + tl.arange(0, BLOCK_N) < COLUMNS
        difference = tl.where(inside[None, :], parts[part] - mean[:, None], 0.0)
        squares += tl.sum(difference * difference, 1)
        centred = centred + (difference,)
    return mean, 1.0 / tl.sqrt_rn(squares / COLUMNS + eps), centred


@triton.jit(do_not_specialize=["threshold", "site", "rows"])
def forward_kernel(
    x, x_bias, residual, weight, bias, rng, y, total, mean, rstd, eps, keep_scale, threshold, site, rows,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: rows ``i·BLOCK_M …``. Without rng nothing is dropped; without total the sum is x and not written."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = row < rows
    begin = row.to(tl.int64) * COLUMNS
    values = load_parts(x + begin, real, COLUMNS, PARTS, BLOCK_N)
    if x_bias is not None:
        added = load_vector(x_bias, COLUMNS, PARTS, BLOCK_N)
    if residual is not None:
        residuals = load_parts(residual + begin, real, COLUMNS, PARTS, BLOCK_N)
    if rng is not None:
        seed, step = load_state(rng)
    sums = ()
    for part in tl.static_range(PARTS):
        value = values[part]
        if x_bias is not None:
            value += added[part]
        if rng is not None:
            keep = keep_tile(seed, step, site, row, part * (BLOCK_N // 16), threshold, BLOCK_N // 16)
            value = tl.where(keep, value * keep_scale, 0.0)
        if residual is not None:
            value += residuals[part]
        sums = sums + (value,)
    row_mean, row_rstd, centred = mean_and_rstd(sums, eps, COLUMNS, PARTS, BLOCK_N)
    tl.store(mean + row, row_mean, mask=real)
    tl.store(rstd + row, row_rstd, mask=real)
    if total is not None:
        store_parts(total + begin, real, sums, COLUMNS, PARTS, BLOCK_N)
    weights, biases = load_vector(weight, COLUMNS, PARTS, BLOCK_N), load_vector(bias, COLUMNS, PARTS, BLOCK_N)
    out = ()
    for part in tl.static_range(PARTS):
        out = out + (centred[part] * row_rstd[:, None] * weights[part] + biases[part],)
    store_parts(y + begin, real, out, COLUMNS, PARTS, BLOCK_N)


@triton.jit(do_not_specialize=["threshold", "site", "rows"])
def backward_kernel(
    grad, total, mean, rstd, weight, rng, dx, dresidual, sums, keep_scale, threshold, site, rows,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, X_BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: every num_programs(0)-th block of rows from the i-th; its partial sums in ``sums [2 or 3, P, N]``."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    weights = load_vector(weight, COLUMNS, PARTS, BLOCK_N)
    if rng is not None:
        seed, step = load_state(rng)
    dweight, dbias, dx_bias = (), (), ()
    for _ in tl.static_range(PARTS):
        zeros = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        dweight, dbias, dx_bias = dweight + (zeros,), dbias + (zeros,), dx_bias + (zeros,)
    for block in range(program, tl.cdiv(rows, BLOCK_M), programs):
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        real = row < rows
        begin = row.to(tl.int64) * COLUMNS
        grads = load_parts(grad + begin, real, COLUMNS, PARTS, BLOCK_N)
        values = load_parts(total + begin, real, COLUMNS, PARTS, BLOCK_N)
        row_mean = tl.load(mean + row, mask=real, other=0.0)
        row_rstd = tl.load(rstd + row, mask=real, other=0.0)
        first, second = tl.zeros_like(row_mean), tl.zeros_like(row_mean)
        normal, new_dweight, new_dbias = (), (), ()
        for part in tl.static_range(PARTS):
            normalized = (values[part] - row_mean[:, None]) * row_rstd[:, None]
            weighted = grads[part] * weights[part]  # 0 outside, as the gradient is
            first += tl.sum(weighted, 1)
            second += tl.sum(weighted * normalized, 1)
            normal = normal + (normalized,)
            new_dweight = new_dweight + (dweight[part] + grads[part] * normalized,)
            new_dbias = new_dbias + (dbias[part] + grads[part],)
        dweight, dbias = new_dweight, new_dbias
        first, second = first / COLUMNS, second / COLUMNS
        dsum, dropped, new_dx_bias = (), (), ()
        for part in tl.static_range(PARTS):
            weighted = grads[part] * weights[part]
            value = (weighted - first[:, None] - normal[part] * second[:, None]) * row_rstd[:, None]
            dsum = dsum + (value,)
            if rng is not None:
                keep = keep_tile(seed, step, site, row, part * (BLOCK_N // 16), threshold, BLOCK_N // 16)
                value = tl.where(keep, value * keep_scale, 0.0)
                dropped = dropped + (value,)
            if X_BIAS:
                new_dx_bias = new_dx_bias + (dx_bias[part] + value,)
        store_parts(dresidual + begin, real, dsum, COLUMNS, PARTS, BLOCK_N)
        if rng is not None:
            store_parts(dx + begin, real, dropped, COLUMNS, PARTS, BLOCK_N)
        if X_BIAS:
            dx_bias = new_dx_bias
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        place, inside = sums + program * COLUMNS + column, column < COLUMNS
        tl.store(place, tl.sum(dweight[part], 0), mask=inside)
        tl.store(place + programs * COLUMNS, tl.sum(dbias[part], 0), mask=inside)
        if X_BIAS:
            tl.store(place + 2 * programs * COLUMNS, tl.sum(dx_bias[part], 0), mask=inside)


def forward(
    x: Tensor,
    x_bias: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the sum (empty where it is x), mean and rstd ``[rows]``."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    x_bias = None if x_bias is None else x_bias.contiguous()
    residual = None if residual is None else residual.contiguous()
    rng = rng if dropout_p > 0.0 else None
    columns = x.shape[-1]
    rows = x.numel() // columns
    y = torch.empty_like(x)
    plain = x_bias is None and residual is None and rng is None
    total = x.new_empty(0) if plain else torch.empty_like(x)
    mean = torch.empty(rows, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    if rows == 0:
        return y, total, mean, rstd
    parts, block_n = split(columns)
    threshold, keep_scale = dropout_arguments(dropout_p)
    c = configuration("layer_norm_forward", x.device)
    with on(x.device):
        launch(
            forward_kernel,
            c,
            (divide_up(rows, c.block_m),),
            (x, x_bias, residual, weight, bias, rng, y, None if plain else total, mean, rstd),
            (eps, keep_scale, threshold, site, rows),
            (columns, parts, c.block_m, block_n),
        )
    return y, total, mean, rstd


def backward(
    grad: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    x_bias: Tensor | None,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dx (empty without dropout: it equals dresidual), dresidual, dx_bias (empty without x_bias), dweight, dbias."""
    grad, total, weight = grad.contiguous(), total.contiguous(), weight.contiguous()
    rng = rng if dropout_p > 0.0 else None
    columns = total.shape[-1]
    rows = total.numel() // columns
    dresidual = torch.empty_like(total)
    dx = total.new_empty(0) if rng is None else torch.empty_like(total)
    vectors = [weight, bias] if x_bias is None else [weight, bias, x_bias]
    if rows == 0:
        gradients = [torch.zeros(columns, dtype=v.dtype, device=v.device) for v in vectors]
    else:
        gradients = [torch.empty(columns, dtype=v.dtype, device=v.device) for v in vectors]
        parts, block_n = split(columns)
        threshold, keep_scale = dropout_arguments(dropout_p)
        c = configuration("layer_norm_backward", total.device, "wide" if columns > 512 else ANY)
        programs = partial_count(divide_up(rows, c.block_m))
        sums = workspace(len(vectors), programs, columns, total.device)
        with on(total.device):
            launch(
                backward_kernel,
                c,
                (programs,),
                (grad, total, mean, rstd, weight, rng, None if rng is None else dx, dresidual, sums),
                (keep_scale, threshold, site, rows),
                (columns, parts, x_bias is not None, c.block_m, block_n),
            )
            sum_columns(sums, *gradients)
    dweight, dbias = gradients[:2]
    return dx, dresidual, gradients[2] if x_bias is not None else total.new_empty(0), dweight, dbias
