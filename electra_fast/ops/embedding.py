"""Word, position and segment rows, summed, normalised and dropped out in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, checks


def embedding(
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor,
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    rng: Tensor | None = None,
    site: int = 0,
    padding_idx: int | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``y = dropout(LN(word[input_ids] + position[position_ids] + token_type[token_type_ids]))``.

    Args:
        input_ids, position_ids, token_type_ids: int64, one shape ``[...]``; an id outside its table is an error on the
            CPU.
        word, position, token_type: tables ``[V, E]``, ``[S, E]``, ``[K, E]``, one float dtype.
        weight, bias: of the layer norm, ``[E]``, the tables' dtype or float32.
        eps, dropout_p, rng, site: as in `layer_norm`.
        padding_idx: row of ``word`` that gets no gradient; None: every row gets one.
        out_dtype: dtype of y; default autocast's dtype where autocast is on, else the tables'.

    Returns: y ``[..., E]``. Computed in float32 (float64 for float64). Saved for backward: ids, tables, mean and rstd;
    the sum of the three rows and the dropout mask are made again.

    Raises: TypeError for a wrong dtype, ValueError for a wrong shape, device, dropout_p, site or padding_idx.

    Source: Devlin et al. 2019, section 3; google-research/electra ``modeling.py``.
    """
    op = "embedding"
    checks.check(op, "word", word, checks.FLOATS, (None, None))
    width = word.shape[1]
    checks.check(op, "position", position, (word.dtype,), (None, width), word)
    checks.check(op, "token_type", token_type, (word.dtype,), (None, width), word)
    checks.check(op, "weight", weight, checks.parameter_dtypes(word), (width,), word)
    checks.check(op, "bias", bias, checks.parameter_dtypes(word), (width,), word)
    checks.check(op, "input_ids", input_ids, checks.INT64, None, word)
    checks.check(op, "position_ids", position_ids, checks.INT64, input_ids.shape, word)
    checks.check(op, "token_type_ids", token_type_ids, checks.INT64, input_ids.shape, word)
    padding = -1 if padding_idx is None else padding_idx
    checks.check_range(op, "padding_idx", padding, -1, word.shape[0] - 1)
    if out_dtype is None:
        out_dtype = checks.autocast_dtype(word) or word.dtype
    if (out_dtype == torch.float64) != (word.dtype == torch.float64):
        raise TypeError(f"embedding: out_dtype must be float64 for float64 tables and only for them, got {out_dtype}")
    rng = checks.dropout_rng(op, dropout_p, rng, site, word)
    tables = (input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias)
    return backend.run(
        op, (*tables, eps, dropout_p, rng, site, padding, out_dtype), word.device, word.dtype, out_dtype
    )[0]


def _accumulation(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake(
    input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, eps, dropout_p, rng, site,
    padding_idx, out_dtype,
):  # fmt: skip
    y = word.new_empty((*input_ids.shape, word.shape[1]), dtype=out_dtype)
    statistic = word.new_empty(input_ids.numel(), dtype=_accumulation(word))
    return y, statistic, torch.empty_like(statistic)


def _backward_fake(
    grad, input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, mean, rstd, dropout_p, rng,
    site, padding_idx,
):  # fmt: skip
    return tuple(table.new_empty(table.shape) for table in (word, position, token_type, weight, bias))


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    *tables, _, dropout_p, rng, site, padding_idx, _ = inputs
    _, mean, rstd = outputs
    return (*tables, mean, rstd, rng), (dropout_p, site, padding_idx)


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, ...]:
    *saved, rng = tensors
    dropout_p, site, padding_idx = values
    return derivative(grad, *saved, dropout_p, rng, site, padding_idx)


backend.register(
    "embedding",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(3, 8),
    save=_save,
    backward=_backward,
)
