"""The layers of a post-LN transformer decoder: a token sees those before it, and all of another, encoded sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from electra_fast import ops

from .attention import Attention, ResidualOutput, project_together
from .encoder import assign_sites
from .feed_forward import Intermediate, feed_forward
from .sizes import Sizes


class Memory(NamedTuple):
    """Encoded sequences for a decoder to look at: ``hidden [S, N]``, ``cu_seqlens`` int32 ``[B+1]``, a bound of their
    lengths."""

    hidden: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


class MemoryKeys(NamedTuple):
    """A layer's keys and values ``[S, H, D]`` of a `Memory`."""

    keys: Tensor
    values: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


class MemoryAttention(nn.Module):
    """``softmax(q kᵀ/√D) v`` with q projected from x, k and v from a memory.

    State dict of `transformers`' ``ElectraCrossAttention``: ``{query,key,value}.{weight,bias}``.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_p = config.attention_probs_dropout_prob
        self.site = 0

    def keys(self, memory: Memory) -> MemoryKeys:
        """What stays the same for every token of the decoder."""
        both = project_together(memory.hidden, (self.key, self.value))
        keys, values = both.unflatten(-1, (2, self.num_attention_heads, -1)).unbind(-3)
        return MemoryKeys(keys, values, memory.cu_seqlens, memory.max_seqlen)

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, keys: MemoryKeys, rng: Tensor | None = None
    ) -> Tensor:
        """``x [T, N]``, as many sequences as the memory has, to ``[T, N]``."""
        return ops.attention(
            self.query(x).unflatten(-1, (self.num_attention_heads, -1)),
            keys.keys,
            keys.values,
            cu_seqlens,
            keys.cu_seqlens,
            max_seqlen_q=max_seqlen,
            max_seqlen_k=keys.max_seqlen,
            dropout_p=self.dropout_p if self.training else 0.0,
            rng=rng,
            site=self.site,
        ).flatten(-2)


class CrossAttention(nn.Module):
    """`MemoryAttention`, its output projection, residual and norm, under the names ``self`` and ``output``."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.self = MemoryAttention(config)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, keys: MemoryKeys, rng: Tensor | None = None
    ) -> Tensor:
        """As `MemoryAttention.forward`."""
        return self.output(self.self(x, cu_seqlens, max_seqlen, keys, rng), x, rng)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to a memory, feed-forward, each with its residual and norm after it.

    State dict of `transformers`' ``ElectraLayer`` with ``is_decoder`` and ``add_cross_attention``: that of
    `EncoderLayer`, and ``crossattention.self.{query,key,value}.*``, ``crossattention.output.{dense,LayerNorm}.*``.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention.self.causal = True
        self.crossattention = CrossAttention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)
        assign_sites(self, 0)

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, memory: Memory, rng: Tensor | None = None
    ) -> Tensor:
        """All tokens at once, packed: ``x [T, N]`` to ``[T, N]``."""
        x = self.attention(x, cu_seqlens, max_seqlen, rng)
        x = self.crossattention(x, cu_seqlens, max_seqlen, self.crossattention.self.keys(memory), rng)
        return feed_forward(x, self.intermediate, self.output, rng)

    def step(self, x: Tensor, past: Tensor, keys: MemoryKeys, cu_rows: Tensor) -> tuple[Tensor, Tensor]:
        """The next token of R sequences that are being written.

        Args:
            x: ``[R, N]``, one token each, those that look at the same memory side by side.
            past: ``[R, t, 2, H, D]``, this layer's keys and values of the t tokens before.
            cu_rows: int32 ``[B+1]``, which rows look at which sequence of the memory.

        Returns: ``[R, N]``, and ``past`` with this token: ``[R, t+1, 2, H, D]``.
        """
        own = self.attention.self
        projected = project_together(x, (own.query, own.key, own.value))
        projected = projected.unflatten(-1, (3, own.num_attention_heads, -1))
        past = torch.cat([past, projected[:, None, 1:]], 1)
        rows, length = past.shape[:2]
        single = torch.arange(rows + 1, dtype=torch.int32, device=x.device)
        seen, values = past.flatten(0, 1).unbind(1)
        context = ops.attention(
            projected[:, 0], seen, values, single, single * length, max_seqlen_q=1, max_seqlen_k=length
        )
        x = self.attention.output(context.flatten(-2), x)
        x = self.crossattention(x, cu_rows, rows, keys)
        return feed_forward(x, self.intermediate, self.output, None), past


class Decoder(nn.Module):
    """A stack of `DecoderLayer`: ``layer.{i}.*``."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        assign_sites(self, 0)

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, memory: Memory, rng: Tensor | None = None
    ) -> Tensor:
        """As `DecoderLayer.forward`."""
        for layer in self.layer:
            x = layer(x, cu_seqlens, max_seqlen, memory, rng)
        return x
