"""embedding: ``y = dropout(LN(word[ids] + position[position_ids] + token_type[token_type_ids]))``, and its gradients.

Forward reads three rows and writes one for each token. Backward reads them again and the gradient, makes the gradient
of the sum of the three, ``[T, E]`` in float32, and adds its rows up by id, for the three tables at once (`sums_by_id`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import load_parts, load_vector, split, store_parts
from .configurations import ANY, configuration
from .launch import divide_up, launch, on
from .layer_norm import mean_and_rstd
from .partial_sums import partial_count, sum_columns, workspace
from .random import dropout_arguments, keep_tile, load_state
from .sums_by_id import sum_by_id


@triton.jit
def load_sum(
    input_ids, position_ids, token_type_ids, word, position, token_type, row, real,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The three ids ``[R]`` of each token, and the sum of its three rows in float32, a tuple of ``[R, BLOCK_N]``."""
    word_id = tl.load(input_ids + row, mask=real, other=0)
    position_id = tl.load(position_ids + row, mask=real, other=0)
    type_id = tl.load(token_type_ids + row, mask=real, other=0)
    words = load_parts(word + word_id * COLUMNS, real, COLUMNS, PARTS, BLOCK_N)
    positions = load_parts(position + position_id * COLUMNS, real, COLUMNS, PARTS, BLOCK_N)
    types = load_parts(token_type + type_id * COLUMNS, real, COLUMNS, PARTS, BLOCK_N)
    sums = ()
    for part in tl.static_range(PARTS):
        sums = sums + (words[part] + positions[part] + types[part],)
    return word_id, position_id, type_id, sums


@triton.jit(do_not_specialize=["threshold", "site", "rows"])
def forward_kernel(
    input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, rng, y, mean, rstd, eps,
    keep_scale, threshold, site, rows,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: tokens ``i·BLOCK_M …``. Without rng nothing is dropped."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = row < rows
    _, _, _, sums = load_sum(
        input_ids, position_ids, token_type_ids, word, position, token_type, row, real, COLUMNS, PARTS, BLOCK_N
    )
    row_mean, row_rstd, centred = mean_and_rstd(sums, eps, COLUMNS, PARTS, BLOCK_N)
    tl.store(mean + row, row_mean, mask=real)
    tl.store(rstd + row, row_rstd, mask=real)
    weights, biases = load_vector(weight, COLUMNS, PARTS, BLOCK_N), load_vector(bias, COLUMNS, PARTS, BLOCK_N)
    if rng is not None:
        seed, step = load_state(rng)
    out = ()
    for part in tl.static_range(PARTS):
        value = centred[part] * row_rstd[:, None] * weights[part] + biases[part]
        if rng is not None:
            keep = keep_tile(seed, step, site, row, part * (BLOCK_N // 16), threshold, BLOCK_N // 16)
            value = tl.where(keep, value * keep_scale, 0.0)
        out = out + (value,)
    store_parts(y + row.to(tl.int64) * COLUMNS, real, out, COLUMNS, PARTS, BLOCK_N)


@triton.jit(do_not_specialize=["threshold", "site", "rows", "words", "positions"])
def backward_kernel(
    grad, input_ids, position_ids, token_type_ids, word, position, token_type, weight, mean, rstd, rng, dsum, ids, sums,
    keep_scale, threshold, site, rows, words, positions,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: every num_programs(0)-th block of tokens from the i-th; dweight and dbias in ``sums [2, P, E]``.

    Also writes the ids of the three tables as one range of numbers, ``ids [3, rows]``, to be sorted.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    weights = load_vector(weight, COLUMNS, PARTS, BLOCK_N)
    if rng is not None:
        seed, step = load_state(rng)
    dweight, dbias = (), ()
    for _ in tl.static_range(PARTS):
        zeros = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        dweight, dbias = dweight + (zeros,), dbias + (zeros,)
    for block in range(program, tl.cdiv(rows, BLOCK_M), programs):
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        real = row < rows
        word_id, position_id, type_id, values = load_sum(
            input_ids, position_ids, token_type_ids, word, position, token_type, row, real, COLUMNS, PARTS, BLOCK_N
        )
        tl.store(ids + row, word_id.to(tl.int32), mask=real)
        tl.store(ids + rows + row, (words + position_id).to(tl.int32), mask=real)
        tl.store(ids + 2 * rows + row, (words + positions + type_id).to(tl.int32), mask=real)
        begin = row.to(tl.int64) * COLUMNS
        loaded = load_parts(grad + begin, real, COLUMNS, PARTS, BLOCK_N)
        row_mean = tl.load(mean + row, mask=real, other=0.0)
        row_rstd = tl.load(rstd + row, mask=real, other=0.0)
        first, second = tl.zeros_like(row_mean), tl.zeros_like(row_mean)
        grads, normal, new_dweight, new_dbias = (), (), (), ()
        for part in tl.static_range(PARTS):
            gradient = loaded[part]
            if rng is not None:
                keep = keep_tile(seed, step, site, row, part * (BLOCK_N // 16), threshold, BLOCK_N // 16)
                gradient = tl.where(keep, gradient * keep_scale, 0.0)
            normalized = (values[part] - row_mean[:, None]) * row_rstd[:, None]
            weighted = gradient * weights[part]  # 0 outside, as the gradient is
            first += tl.sum(weighted, 1)
            second += tl.sum(weighted * normalized, 1)
            grads, normal = grads + (weighted,), normal + (normalized,)
            new_dweight = new_dweight + (dweight[part] + gradient * normalized,)
            new_dbias = new_dbias + (dbias[part] + gradient,)
        dweight, dbias = new_dweight, new_dbias
        first, second = first / COLUMNS, second / COLUMNS
        out = ()
        for part in tl.static_range(PARTS):
            out = out + ((grads[part] - first[:, None] - normal[part] * second[:, None]) * row_rstd[:, None],)
        store_parts(dsum + begin, real, out, COLUMNS, PARTS, BLOCK_N)
    for part in tl.static_range(PARTS):
        column = part * BLOCK_N + tl.arange(0, BLOCK_N)
        place, inside = sums + program * COLUMNS + column, column < COLUMNS
        tl.store(place, tl.sum(dweight[part], 0), mask=inside)
        tl.store(place + programs * COLUMNS, tl.sum(dbias[part], 0), mask=inside)


def forward(
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor,
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
    padding_idx: int,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """y ``[..., E]``, mean and rstd ``[tokens]``. ``padding_idx`` concerns the gradient only."""
    ids = [x.contiguous() for x in (input_ids, position_ids, token_type_ids)]
    parameters = [x.contiguous() for x in (word, position, token_type, weight, bias)]
    rng = rng if dropout_p > 0.0 else None
    rows, columns = input_ids.numel(), word.shape[1]
    y = torch.empty((*input_ids.shape, columns), dtype=out_dtype, device=word.device)
    mean = torch.empty(rows, dtype=torch.float32, device=word.device)
    rstd = torch.empty_like(mean)
    if rows == 0:
        return y, mean, rstd
    parts, block_n = split(columns)
    threshold, keep_scale = dropout_arguments(dropout_p)
    c = configuration("embedding_forward", word.device)
    with on(word.device):
        launch(
            forward_kernel,
            c,
            (divide_up(rows, c.block_m),),
            (*ids, *parameters, rng, y, mean, rstd),
            (eps, keep_scale, threshold, site, rows),
            (columns, parts, c.block_m, block_n),
        )
    return y, mean, rstd


def backward(
    grad: Tensor,
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor,
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
    padding_idx: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of word, position, token_type, weight and bias. The mask and the sum of the rows are made again."""
    given = [
        x.contiguous() for x in (grad, input_ids, position_ids, token_type_ids, word, position, token_type, weight)
    ]
    rng = rng if dropout_p > 0.0 else None
    rows, columns = input_ids.numel(), word.shape[1]
    zeros = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (word, position, token_type, weight, bias))
    dword, dposition, dtoken_type, dweight, dbias = zeros
    if rows == 0:
        return dword, dposition, dtoken_type, dweight, dbias
    parts, block_n = split(columns)
    threshold, keep_scale = dropout_arguments(dropout_p)
    c = configuration("embedding_backward", word.device, "wide" if columns > 512 else ANY)
    programs = partial_count(divide_up(rows, c.block_m))
    sums = workspace(2, programs, columns, word.device)
    dsum = torch.empty((rows, columns), dtype=torch.float32, device=word.device)
    ids = torch.empty(3 * rows, dtype=torch.int32, device=word.device)
    with on(word.device):
        launch(
            backward_kernel,
            c,
            (programs,),
            (*given, mean, rstd, rng, dsum, ids, sums),
            (keep_scale, threshold, site, rows, word.shape[0], position.shape[0]),
            (columns, parts, c.block_m, block_n),
        )
        sum_columns(sums, dweight, dbias)
        sum_by_id(dsum, ids, (dword, dposition, dtoken_type), padding_idx)
    return dword, dposition, dtoken_type, dweight, dbias
