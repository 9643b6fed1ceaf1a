"""Self-attention under Hugging Face's names, on packed or padded sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra_fast import ops

from .layer_norm import LayerNorm, add_and_norm
from .linear import is_plain, project
from .sizes import Sizes


class SelfAttention(nn.Module):
    """``softmax(q kᵀ/√D) v`` with ``q, k, v`` projected from x, H heads of size D.

    State dict of `transformers`' ``ElectraSelfAttention``: ``{query,key,value}.{weight,bias}``. ``causal = True`` hides
    from each token those after it.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_p = config.attention_probs_dropout_prob
        self.causal = False
        self.site = 0

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        rng: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Packed ``[T, N]`` with ``cu_seqlens`` int32 ``[B+1]``, or padded ``[B, S, N]`` with a mask ``[B, S]``.

        Args:
            max_seqlen: an upper bound of the packed sequences' lengths.
            attention_mask: non-zero for real tokens; the others are neither seen nor computed (zeros come out).
        """
        dropout_p = self.dropout_p if self.training else 0.0
        if x.ndim == 3:
            mask = None if attention_mask is None else attention_mask != 0
            q, k, v = (_heads(linear(x), self.num_attention_heads) for linear in (self.query, self.key, self.value))
            drawn = {"dropout_p": dropout_p, "rng": rng, "site": self.site}
            return ops.attention_padded(q, k, v, mask, causal=self.causal, **drawn).flatten(-2)
        if cu_seqlens is None:
            raise ValueError("SelfAttention: packed x [T, N] needs cu_seqlens; padded x must have shape [B, S, N]")
        return self_attention(self, x, cu_seqlens, max_seqlen, dropout_p=dropout_p, rng=rng, site=self.site)


def self_attention(
    layer: nn.Module,
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None,
    *,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
    keys: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
) -> Tensor:
    """Packed self-attention ``[T, N]`` with the projections of a module that has ``ElectraSelfAttention``'s names.

    ``keys`` int64 ``[Tk]``, with its own ``cu_seqlens_k``, names the rows of x that may be seen; absent, all may.
    """
    heads = layer.num_attention_heads
    linears = (layer.query, layer.key, layer.value)
    if keys is None and all(is_plain(linear, nn.Linear) and linear.bias is not None for linear in linears):
        q, k, v = _heads(project_together(x, linears), 3 * heads).unflatten(-2, (3, heads)).unbind(-3)
    else:
        seen = x if keys is None else x.index_select(0, keys)
        q, k, v = (_heads(linear(rows), heads) for linear, rows in zip(linears, (x, seen, seen), strict=True))
    return ops.attention(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens_k,
        max_seqlen_q=max_seqlen,
        max_seqlen_k=max_seqlen,
        causal=getattr(layer, "causal", False),
        dropout_p=dropout_p,
        rng=rng,
        site=site,
    ).flatten(-2)


def project_together(x: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
    """``[..., 3·N]``: one product, of three times as many columns, in place of three; and in backward likewise."""
    return F.linear(x, torch.cat([linear.weight for linear in linears]), torch.cat([linear.bias for linear in linears]))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, x.shape[-1] // heads))


class ResidualOutput(nn.Module):
    """``LN(residual + dropout(dense(x)))``, the end of both halves of a layer.

    State dict of `transformers`' ``ElectraSelfOutput`` and ``ElectraOutput``: ``dense.*``, ``LayerNorm.*``.
    """

    def __init__(self, config: Sizes, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob
        self.site = 0

    def forward(self, x: Tensor, residual: Tensor, rng: Tensor | None = None) -> Tensor:
        """``x [..., in_features]``, ``residual [..., N]`` to ``[..., N]``."""
        return self.add_and_norm(*project(self.dense, x), residual, rng)

    def add_and_norm(self, y: Tensor, bias: Tensor | None, residual: Tensor, rng: Tensor | None) -> Tensor:
        """What is left to do when ``dense`` has been applied, and its bias not yet."""
        rate = self.dropout_p if self.training else 0.0
        return add_and_norm(y, bias, residual, self.LayerNorm, dropout_p=rate, rng=rng, site=self.site)


class Attention(nn.Module):
    """Self-attention, its output projection, residual and norm: ``ElectraAttention``, with ``self`` and ``output``."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        rng: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """As `SelfAttention.forward`."""
        return self.output(self.self(x, cu_seqlens, max_seqlen, rng, attention_mask), x, rng)
