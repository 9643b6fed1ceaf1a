"""Forward of packed attention: FlashAttention's online softmax (Dao et al. 2022), a program per tile of queries.

Queries are read once; keys and values once per tile of queries of their sequence (mostly from L2: the tiles of a
sequence are neighbours); the output and the log-sum-exp are written once. Scores and probabilities never leave the
program, and dropout is drawn beside them, one Philox call per 16 keys of a query.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_tiles import (
    LN_2,
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
def forward_kernel(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    rng,
    out,
    lse,
    total,
    batch,
    scale,  # times log2 e: exponentials and logarithms are those of base 2
    keep_scale,
    threshold,
    site,
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
    sequence, start_q, nq, first = find_tile(cu_seqlens_q, batch, total, BLOCK_Q)
    if first >= nq:
        return
    start_k, nk = find_counterpart(cu_seqlens_k, sequence, batch)
    head, heads = tl.program_id(1), tl.num_programs(1)
    row = tl.arange(0, BLOCK_Q)
    query = first + row
    column_key = key_of_column(BLOCK_K, RUN, LANES)
    if DROPOUT:
        seed, step = load_state(rng)
        draws = (start_q + query) * heads + head

    # Blocks of keys below `whole` need no mask: without causality, all whole ones. Keys from `end` on are not seen.
    if CAUSAL:
        keys_seen = tl.minimum(query + (nk - nq + 1), nk)
        whole, end = 0, tl.minimum(first + BLOCK_Q, nq) + nk - nq
    else:
        whole, end = nk // BLOCK_K * BLOCK_K, nk

    queries = load_rows(at(q, start_q, head, q_row, q_head), q_row, first, row, nq, DIM, WIDTH, False)
    k = at(k, start_k, head, k_row, k_head)
    v = at(v, start_k, head, v_row, v_head)
    accumulator = tl.zeros((BLOCK_Q, WIDTH), tl.float32)
    largest = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_Q,), tl.float32)
    for MASKED in tl.static_range(2):
        begin, stop = (whole, end) if MASKED else (0, whole)
        for first_key in range(begin, stop, BLOCK_K):
            keys = load_rows(k, k_row, first_key, column_key, nk, DIM, WIDTH, not MASKED)
            scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
            if MASKED:
                if CAUSAL:
                    visible = columns_below((keys_seen - first_key)[:, None], BLOCK_K, RUN, LANES)
                else:
                    visible = columns_below(nk - first_key, BLOCK_K, RUN, LANES)
                scores = tl.where(visible, scores, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
            reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            weights = tl.exp2(scores * scale - reference[:, None])
            shrink = tl.exp2(largest - reference)
            mass = mass * shrink + tl.sum(weights, 1)
            largest = new_largest
            if DROPOUT:
                keep = keep_columns(seed, step, site, draws, first_key, threshold, BLOCK_K, RUN, LANES)
                weights = tl.where(keep, weights, 0.0)
            values = load_rows(v, v_row, first_key, column_key, nk, DIM, WIDTH, not MASKED)
            accumulator *= shrink[:, None]
            accumulator = tl.dot(weights.to(values.dtype), values, accumulator, input_precision="ieee")

    seen = mass > 0.0
    mass = tl.where(seen, mass, 1.0)
    accumulator *= (keep_scale / mass)[:, None]
    real = query < nq
    store_rows(at(out, start_q, head, heads * DIM, DIM), accumulator, heads * DIM, first, row, nq, DIM)
    logarithm = tl.where(seen, (largest + tl.log2(mass)) * LN_2, float("-inf"))
    tl.store(lse + head.to(tl.int64) * total + start_q + query, logarithm, mask=real)
