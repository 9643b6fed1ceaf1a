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
    tables = (input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias)
    if not _fit(*tables):
        _check(op, *tables)
    dtype = word.dtype
    padding = -1 if padding_idx is None else padding_idx
    if not -1 <= padding < word.shape[0]:
        checks.check_range(op, "padding_idx", padding, -1, word.shape[0] - 1)
    if out_dtype is None:
        out_dtype = checks.autocast_dtype(word) or dtype
    if (out_dtype == torch.float64) != (dtype == torch.float64):
        raise TypeError(f"embedding: out_dtype must be float64 for float64 tables and only for them, got {out_dtype}")
    rng = checks.dropout_rng(op, dropout_p, rng, site, word)
    return backend.run(op, (*tables, eps, dropout_p, rng, site, padding, out_dtype), word.device, dtype, out_dtype)[0]


def _fit(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias) -> bool:
    """Whether nothing is wrong, in half the time of `_check`. False also for what is unusual: vectors of two dtypes."""
    try:
        (_, width), (_, width_1), (_, width_2) = word.shape, position.shape, token_type.shape
        dtype, device, shape, vectors = word.dtype, word.device, input_ids.shape, weight.dtype
        return (
            width_1 == width_2 == width
            and dtype in checks.FLOATS
            and weight.shape == bias.shape == (width,)
            and position_ids.shape == token_type_ids.shape == shape
            and position.dtype is token_type.dtype is dtype
            and bias.dtype is vectors
            and (vectors is dtype or vectors is torch.float32)
            and input_ids.dtype is position_ids.dtype is token_type_ids.dtype is torch.int64
            and position.device == token_type.device == weight.device == bias.device == device
            and input_ids.device == position_ids.device == token_type_ids.device == device
        )
    except (AttributeError, ValueError):  # no tensor, or no matrix
        return False


def _check(op, input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias) -> None:
    """One by one, with a message for what does not fit."""
    checks.check(op, "word", word, checks.FLOATS, (None, None))
    table, parameters = (None, word.shape[1]), checks.parameter_dtypes(word)
    checks.check(op, "position", position, (word.dtype,), table, word)
    checks.check(op, "token_type", token_type, (word.dtype,), table, word)
    checks.check(op, "weight", weight, parameters, table[1:], word)
    checks.check(op, "bias", bias, parameters, table[1:], word)
    checks.check(op, "input_ids", input_ids, checks.INT64, None, word)
    checks.check(op, "position_ids", position_ids, checks.INT64, input_ids.shape, word)
    checks.check(op, "token_type_ids", token_type_ids, checks.INT64, input_ids.shape, word)


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
