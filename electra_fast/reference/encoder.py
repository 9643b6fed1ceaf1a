"""The layers of a post-LN encoder in inference, in plain PyTorch: the truth for `electra_fast.ops.encoder`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention
from .gelu import gelu
from .layer_norm import normalize
from .precision import accumulation

INT8_COLUMNS = 256  # of the intermediate layer, that share a scale in a row of activations


def encoder(
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    layers: Sequence[Sequence[Tensor | None]],
    heads: int,
    eps: float,
    int8: bool = False,
) -> Tensor:
    """``h = LN(x + attention(…) Wo + bo); x ← LN(h + gelu(h W1 + b1) W2 + b2)`` for every layer.

    layers: the twelve tensors of `electra_fast.ops.encoder.LayerParameters` each. int8: products of quantised factors
    (`quantised_product`); those of the intermediate layer quantise 256 columns at a time.
    """
    dtype = accumulation(x.dtype)
    hidden = x.to(dtype)
    for layer in layers:
        w = [None if t is None else t.to(dtype) for t in layer]
        product = quantised_product if int8 else torch.matmul
        q, k, v = (_linear(hidden, w[0], w[1], product).unflatten(-1, (3, heads, -1))).unbind(1)
        context, _ = attention(
            q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, q.shape[-1] ** -0.5, False, 0.0, None, 0
        )
        h, _, _ = normalize(hidden + _linear(context.flatten(1), w[2], w[3], product), w[4], w[5], eps)
        wide = gelu(_linear(h, w[6], w[7], product), None)
        if int8:
            parts = zip(wide.split(INT8_COLUMNS, 1), w[8].split(INT8_COLUMNS, 1), strict=True)
            scale = _scale(w[8])
            narrow = sum(quantised_product(a, b.T, weight_scale=scale.T) for a, b in parts)
            narrow = narrow if w[9] is None else narrow + w[9]
        else:
            narrow = F.linear(wide, w[8], w[9])
        hidden, _, _ = normalize(h + narrow, w[10], w[11], eps)
    return hidden.to(x.dtype)


def quantised_product(x: Tensor, weight: Tensor, weight_scale: Tensor | None = None) -> Tensor:
    """``x [T, K] @ weight [K, N]`` with rows of x and columns of the weight rounded to 8 bits, largest value ±127."""
    if weight_scale is None:
        weight_scale = _scale(weight.T).T
    scale = _scale(x)
    return (_rounded(x, scale) @ _rounded(weight, weight_scale)) * scale * weight_scale


def _scale(x: Tensor) -> Tensor:
    """``[rows, 1]``: the largest magnitude over 127."""
    return x.abs().amax(-1, keepdim=True) / 127


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, x / scale, 0.0).round()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, product) -> Tensor:
    y = product(x, weight.T)
    return y if bias is None else y + bias
