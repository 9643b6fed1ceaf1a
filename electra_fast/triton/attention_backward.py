"""Backward of packed attention: probabilities recomputed from the log-sum-exp, two kernels, no atomics.

With p the probabilities, m the dropout mask (kept: 256/threshold, else 0) and delta = rowsum(grad ∘ out):

    dp = m ∘ (grad vᵀ)    ds = p ∘ (dp - delta)    dq = scale · ds k    dk = scale · dsᵀ q    dv = (m ∘ p)ᵀ grad

`query_kernel` (a program per tile of queries) gives dq and, having read grad and out anyway, delta for `key_kernel` (a
program per tile of keys), which gives dk and dv. Each sum is made by one program in a fixed order. So scores and dp are
computed twice, 7 products where 5 would do: adding up dq in memory instead would need atomics, or an order imposed on
the programs. Queries are read once by the first and once per tile of keys by the second, keys the other way round.

Source: Dao et al. 2022, algorithm 4; Dao 2023, section 3.1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_tiles import (
    LOG2_E,
    at,
    columns_below,
    find_counterpart,
    find_tile,
    keep_columns,
    key_of_column,
    load_rows,
    store_rows,
)
from .random import load_state


@triton.jit(do_not_specialize=["total", "batch", "threshold", "site"])
def query_kernel(
    grad,
    q,
    k,
    v,
    out,
    lse,
    cu_seqlens_q,
    cu_seqlens_k,
    rng,
    dq,
    delta,
    total,
    batch,
    scale,
    keep_scale,
    threshold,
    site,
    grad_row,
    grad_head,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    RUN: tl.constexpr,
    LANES: tl.constexpr,
):
    """dq ``[Tq, H, D]`` and delta ``[H, Tq]``, divided by ``keep_scale`` (what it is subtracted from is not scaled)."""
    sequence, start_q, nq, first = find_tile(cu_seqlens_q, batch, total, BLOCK_Q)
    if first >= nq:
        return
    start_k, nk = find_counterpart(cu_seqlens_k, sequence, batch)
    head, heads = tl.program_id(1), tl.num_programs(1)
    row = tl.arange(0, BLOCK_Q)
    query = first + row
    column_key = key_of_column(BLOCK_K, RUN, LANES)
    real = query < nq
    if DROPOUT:
        seed, step = load_state(rng)
        draws = (start_q + query) * heads + head
    if CAUSAL:
        keys_seen = tl.minimum(query + (nk - nq + 1), nk)
        whole, end = 0, tl.minimum(first + BLOCK_Q, nq) + nk - nq
    else:
        whole, end = nk // BLOCK_K * BLOCK_K, nk

    queries = load_rows(at(q, start_q, head, q_row, q_head), q_row, first, row, nq, DIM, WIDTH, False)
    grads = load_rows(at(grad, start_q, head, grad_row, grad_head), grad_row, first, row, nq, DIM, WIDTH, False)
    outs = load_rows(at(out, start_q, head, heads * DIM, DIM), heads * DIM, first, row, nq, DIM, WIDTH, False)
    deltas = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1) / keep_scale
    statistics = head.to(tl.int64) * total + start_q + query
    tl.store(delta + statistics, deltas, mask=real)
    # +inf gives a row that sees no key, and one that is not there, probabilities 0.
    lses = tl.load(lse + statistics, mask=real, other=float("inf")) * LOG2_E
    lses = tl.where(lses == float("-inf"), float("inf"), lses)

    k = at(k, start_k, head, k_row, k_head)
    v = at(v, start_k, head, v_row, v_head)
    accumulator = tl.zeros((BLOCK_Q, WIDTH), tl.float32)
    for MASKED in tl.static_range(2):
        begin, stop = (whole, end) if MASKED else (0, whole)
        for first_key in range(begin, stop, BLOCK_K):
            keys = load_rows(k, k_row, first_key, column_key, nk, DIM, WIDTH, not MASKED)
            values = load_rows(v, v_row, first_key, column_key, nk, DIM, WIDTH, not MASKED)
            scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
            weights = tl.exp2(scores * (scale * LOG2_E) - lses[:, None])
            if MASKED:
                if CAUSAL:
                    visible = columns_below((keys_seen - first_key)[:, None], BLOCK_K, RUN, LANES)
                else:
                    visible = columns_below(nk - first_key, BLOCK_K, RUN, LANES)
                weights = tl.where(visible, weights, 0.0)
            dscores = tl.dot(grads, tl.trans(values), input_precision="ieee")
            if DROPOUT:
                keep = keep_columns(seed, step, site, draws, first_key, threshold, BLOCK_K, RUN, LANES)
                dscores = tl.where(keep, dscores, 0.0)
            dscores = weights * (dscores - deltas[:, None])
            accumulator = tl.dot(dscores.to(keys.dtype), keys, accumulator, input_precision="ieee")
    accumulator *= scale * keep_scale
    store_rows(at(dq, start_q, head, heads * DIM, DIM), accumulator, heads * DIM, first, row, nq, DIM)


@triton.jit(do_not_specialize=["total_q", "total_k", "batch", "threshold", "site"])
def key_kernel(
    grad,
    q,
    k,
    v,
    lse,
    delta,
    cu_seqlens_q,
    cu_seqlens_k,
    rng,
    dk,
    dv,
    total_q,
    total_k,
    batch,
    scale,
    keep_scale,
    threshold,
    site,
    grad_row,
    grad_head,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    RUN: tl.constexpr,
    LANES: tl.constexpr,
):
    """dk and dv ``[Tk, H, D]``. Keys that are not there give rows that are not stored: only causality needs a mask."""
    sequence, start_k, nk, first = find_tile(cu_seqlens_k, batch, total_k, BLOCK_K)
    if first >= nk:
        return
    start_q, nq = find_counterpart(cu_seqlens_q, sequence, batch)
    head, heads = tl.program_id(1), tl.num_programs(1)
    row, column_key = tl.arange(0, BLOCK_Q), key_of_column(BLOCK_K, RUN, LANES)
    if DROPOUT:
        seed, step = load_state(rng)
    begin = tl.maximum(first + nq - nk, 0) // BLOCK_Q * BLOCK_Q if CAUSAL else 0  # queries before see no key of these

    keys = load_rows(at(k, start_k, head, k_row, k_head), k_row, first, column_key, nk, DIM, WIDTH, False)
    values = load_rows(at(v, start_k, head, v_row, v_head), v_row, first, column_key, nk, DIM, WIDTH, False)
    q = at(q, start_q, head, q_row, q_head)
    grad = at(grad, start_q, head, grad_row, grad_head)
    lse += head.to(tl.int64) * total_q + start_q
    delta += head.to(tl.int64) * total_q + start_q
    dk_sum = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    dv_sum = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    for first_query in range(begin, nq, BLOCK_Q):
        query = first_query + row
        queries = load_rows(q, q_row, first_query, row, nq, DIM, WIDTH, False)
        lses = tl.load(lse + query, mask=query < nq, other=float("inf")) * LOG2_E
        lses = tl.where(lses == float("-inf"), float("inf"), lses)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        weights = tl.exp2(scores * (scale * LOG2_E) - lses[:, None])
        if CAUSAL:
            seeing = columns_below((query + (nk - nq - first + 1))[:, None], BLOCK_K, RUN, LANES)
            weights = tl.where(seeing, weights, 0.0)
        grads = load_rows(grad, grad_row, first_query, row, nq, DIM, WIDTH, False)
        kept = weights
        if DROPOUT:
            draws = (start_q + query) * heads + head
            keep = keep_columns(seed, step, site, draws, first, threshold, BLOCK_K, RUN, LANES)
            kept = tl.where(keep, weights, 0.0)
            weights = tl.where(keep, weights, -weights)  # the sign carries the mask to where dscores are known
        dv_sum = tl.dot(tl.trans(kept.to(grads.dtype)), grads, dv_sum, input_precision="ieee")
        dscores = tl.dot(grads, tl.trans(values), input_precision="ieee")  # after the draws, which need registers too
        deltas = tl.load(delta + query, mask=query < nq, other=0.0)
        if DROPOUT:
            dscores = tl.abs(weights) * (tl.where(weights > 0.0, dscores, 0.0) - deltas[:, None])
        else:
            dscores = weights * (dscores - deltas[:, None])
        dk_sum = tl.dot(tl.trans(dscores.to(queries.dtype)), queries, dk_sum, input_precision="ieee")
    dk_sum *= scale * keep_scale
    dv_sum *= keep_scale
    store_rows(at(dk, start_k, head, heads * DIM, DIM), dk_sum, heads * DIM, first, column_key, nk, DIM)
    store_rows(at(dv, start_k, head, heads * DIM, DIM), dv_sum, heads * DIM, first, column_key, nk, DIM)
