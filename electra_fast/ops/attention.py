"""Scaled dot-product attention over packed sequences, and over padded ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import backend, checks

_ANY_LENGTH = 2**31 - 1


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    scale: float | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    rng: Tensor | None = None,
    site: int = 0,
) -> Tensor:
    """``softmax(q kᵀ · scale + mask)``, dropout on the probabilities, times ``v``, within each packed sequence.

    Args:
        q: ``[Tq, H, D]``; k, v: ``[Tk, H, D]``; one float dtype; any strides. Autocast casts them to its dtype.
        cu_seqlens_q, cu_seqlens_k: int32 ``[B+1]``, where each sequence starts, and the end; k's default to q's.
            Rows after the last sequence are padding: their output and gradients are zero.
        max_seqlen_q, max_seqlen_k: upper bounds of the sequences' lengths; default Tq, Tk. Never read from the device.
        scale: of the scores; default ``1/√D``.
        causal: query i of a sequence sees the keys ``j <= i + nk - nq`` (aligned to the end).
        dropout_p, rng, site: as in `layer_norm`; a probability is named by its query's packed index, head and key.

    Returns: ``[Tq, H, D]``, contiguous. A row that sees no key is zero. Softmax in float32 (float64 for float64). Saved
    for backward: q, k, v, the output and the log-sum-exp ``[H, Tq]``.

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape, device, dropout_p, site or bound and, on the CPU,
    for cu_seqlens that fall or run past the tokens.

    Source: Vaswani et al. 2017, section 3.2.1; Dao et al. 2022 for what is saved.
    """
    op = "attention"
    if not _fit(q, k, v, cu_seqlens_q):
        _check(op, q, k, v, cu_seqlens_q)
    cast = checks.autocast_dtype(q)
    if cu_seqlens_k is None:
        cu_seqlens_k = cu_seqlens_q
    else:
        checks.check(op, "cu_seqlens_k", cu_seqlens_k, checks.INT32, cu_seqlens_q.shape, q)
    if cast is not None:
        q, k, v = q.to(cast), k.to(cast), v.to(cast)
    q, k, v = _rows_contiguous(q), _rows_contiguous(k), _rows_contiguous(v)
    max_seqlen_q = _bound(q) if max_seqlen_q is None else max_seqlen_q
    max_seqlen_k = _bound(k) if max_seqlen_k is None else max_seqlen_k
    if max_seqlen_q < 0 or max_seqlen_k < 0:
        raise ValueError(f"{op}: max_seqlen_q and max_seqlen_k must be at least 0, got {max_seqlen_q}, {max_seqlen_k}")
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[2])
    rng = checks.dropout_rng(op, dropout_p, rng, site, q)
    args = (q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, causal, dropout_p, rng, site)
    return backend.run(op, args, q.device, q.dtype)[0]


def _fit(q, k, v, cu_seqlens_q) -> bool:
    """Whether nothing is wrong, in half the time of `_check`. False also for what is unusual: unequal dtypes."""
    try:
        (_, heads, dim), (_, heads_k, dim_k) = q.shape, k.shape
        (ends,), dtype, device = cu_seqlens_q.shape, q.dtype, q.device
        return (
            dtype in checks.FLOATS
            and k.dtype is v.dtype is dtype
            and heads_k == heads
            and dim_k == dim
            and v.shape == k.shape
            and cu_seqlens_q.dtype is torch.int32
            and ends > 0
            and k.device == v.device == cu_seqlens_q.device == device
        )
    except (AttributeError, ValueError):  # no tensor, or not of so many dimensions
        return False


def _check(op: str, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor) -> None:
    """One by one, with a message for what does not fit."""
    checks.check(op, "q", q, checks.FLOATS, (None, None, None))
    dtypes = (q.dtype,) if checks.autocast_dtype(q) is None else checks.CASTABLE
    checks.check(op, "k", k, dtypes, (None, *q.shape[1:]), q)
    checks.check(op, "v", v, dtypes, k.shape, q)
    checks.check_cu_seqlens(op, "cu_seqlens_q", cu_seqlens_q, q)


def attention_padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    rng: Tensor | None = None,
    site: int = 0,
) -> Tensor:
    """`attention` of padded sequences ``q, k, v [B, S, H, D]``; zeros where ``mask`` (bool ``[B, S]``) is False.

    The real tokens, wherever they stand, are packed end to end, so that dropout draws what it draws for them packed.
    """
    op = "attention_padded"
    checks.check(op, "q", q, checks.FLOATS, (None, None, None, None))
    checks.check(op, "k", k, checks.FLOATS, q.shape, q)
    checks.check(op, "v", v, checks.FLOATS, q.shape, q)
    batch, length = q.shape[:2]
    options = dict(  # noqa: C408
        max_seqlen_q=length, max_seqlen_k=length, scale=scale, causal=causal, dropout_p=dropout_p, rng=rng, site=site
    )
    if mask is None:
        cu_seqlens = torch.arange(batch + 1, dtype=torch.int32, device=q.device) * length
        return attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), cu_seqlens, **options).view(q.shape)
    checks.check(op, "mask", mask, checks.BOOL, (batch, length), q)
    cu_seqlens = torch.cat([mask.new_zeros(1, dtype=torch.int32), mask.sum(1).cumsum(0).to(torch.int32)])
    order = torch.argsort(~mask.flatten(), stable=True)  # real tokens first, in their order
    out = attention(*(x.flatten(0, 1)[order] for x in (q, k, v)), cu_seqlens, **options)
    return torch.empty_like(out).index_copy(0, order, out).view(q.shape)


def _bound(x: Tensor) -> int:
    """No sequence is longer than all tokens; in a traced graph no number stands, for it would bind the graph to it."""
    return _ANY_LENGTH if torch.compiler.is_compiling() else x.shape[0]


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride()[-1] == 1 else x.contiguous()


def _fake(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, causal, dropout_p, rng, site):
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=dtype)


def _backward_fake(
    grad, q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, causal, dropout_p, rng, site
):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    q, k, v, cu_seqlens_q, cu_seqlens_k, *options, rng, site = inputs
    return (q, k, v, *outputs, cu_seqlens_q, cu_seqlens_k, rng), (*options, site)


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, Tensor, Tensor]:
    *saved, rng = tensors
    *options, site = values
    return derivative(grad, *saved, *options, rng, site)


backend.register(
    "attention",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(0, 3),
    save=_save,
    backward=_backward,
)
