"""BERT's input embedding (Devlin et al. 2019, section 3): three looked-up rows summed, normalised, dropped out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layer_norm import normalize
from .packed import values_readable
from .precision import accumulation, dropout


def _check_ids(name: str, ids: Tensor, rows: int) -> None:
    if values_readable(ids) and ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < rows):
        raise ValueError(
            f"embedding: {name} must be in [0, {rows}), the rows of its table, got {int(ids.min())} to {int(ids.max())}"
        )


def embedding(
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
    """``dropout(LN(word[ids] + position[position_ids] + token_type[token_type_ids]))``; returns y, mean, rstd."""
    _check_ids("input_ids", input_ids, word.shape[0])
    _check_ids("position_ids", position_ids, position.shape[0])
    _check_ids("token_type_ids", token_type_ids, token_type.shape[0])
    dtype = accumulation(word.dtype)  # of the tables before the lookup: a row's gradients are summed in it as well
    s = F.embedding(input_ids, word.to(dtype), padding_idx=None if padding_idx < 0 else padding_idx)
    s = s + F.embedding(position_ids, position.to(dtype)) + F.embedding(token_type_ids, token_type.to(dtype))
    y, mean, rstd = normalize(s, weight, bias, eps)
    return dropout(y, dropout_p, rng, site).to(out_dtype), mean.detach().flatten(), rstd.detach().flatten()
