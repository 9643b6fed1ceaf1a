"""`torch.nn.MultiheadAttention` on the packed attention op."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra_fast import ops

from .packing import pack_mask, without_padding


class MultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` (same constructor and state dict), self- or cross-attention, weights not returned.

    Not offered, each with a ValueError: ``bias_k``/``bias_v``, ``add_zero_attn``, an ``attn_mask`` other than the
    causal one that ``is_causal=True`` stands for, and ``need_weights=True``. A query that sees no key yields the
    output projection's bias, where torch gives NaN.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if add_bias_kv or add_zero_attn:
            raise ValueError("MultiheadAttention: add_bias_kv and add_zero_attn must be False; use torch.nn for them")
        super().__init__(
            embed_dim,
            num_heads,
            dropout,
            bias,
            kdim=kdim,
            vdim=vdim,
            batch_first=batch_first,
            device=device,
            dtype=dtype,
        )
        self.site = 0

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """``[L, B, E]``, ``[S, B, kdim]``, ``[S, B, vdim]`` to ``([L, B, E], None)``; batch first if so constructed.

        Args:
            key_padding_mask: bool ``[B, S]``, True for keys that must not be seen.
            is_causal: query i sees the keys ``j <= i``; ``attn_mask``, which torch then wants as well, is not read.
            rng: of the dropout, in training.
        """
        if need_weights:
            raise ValueError("MultiheadAttention: need_weights must be False: the weights are never stored")
        if attn_mask is not None and not is_causal:
            raise ValueError(
                "MultiheadAttention: attn_mask must be None: only key_padding_mask and is_causal are offered"
            )
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            raise ValueError(f"MultiheadAttention: key_padding_mask must be bool, got {key_padding_mask.dtype}")
        if query.ndim != 3:
            raise ValueError(
                f"MultiheadAttention: query must have shape [L, B, E] or [B, L, E], got {list(query.shape)}"
            )
        if not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        batch, length = query.shape[:2]
        if is_causal and length != key.shape[1]:
            raise ValueError(
                f"MultiheadAttention: is_causal needs as many keys as queries, got {key.shape[1]}, {length}"
            )
        if is_causal and key_padding_mask is not None:
            raise ValueError("MultiheadAttention: is_causal cannot be combined with key_padding_mask")
        queries = without_padding(batch, length, query.device)
        keys = (
            without_padding(batch, key.shape[1], query.device)
            if key_padding_mask is None
            else pack_mask(~key_padding_mask)
        )
        heads = (self.num_heads, self.head_dim)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, heads)
            for x, weight, bias in zip(
                (queries.pack(query), keys.pack(key), keys.pack(value)), *self._projections(), strict=True
            )
        )
        context = ops.attention(
            q,
            k,
            v,
            queries.cu_seqlens,
            keys.cu_seqlens,
            max_seqlen_q=queries.max_seqlen,
            max_seqlen_k=keys.max_seqlen,
            causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            rng=rng,
            site=self.site,
        )
        out = self.out_proj(context.flatten(-2)).unflatten(0, (batch, length))
        return out if self.batch_first else out.transpose(0, 1), None

    def _projections(self) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """Weights and biases of query, key and value."""
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return weights, (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
