"""ELECTRA's input embeddings under Hugging Face's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from electra_fast import ops

from .layer_norm import LayerNorm
from .sizes import Sizes

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


class Embeddings(nn.Module):
    """``dropout(LN(word[ids] + position[position_ids] + token_type[token_type_ids]))``.

    State dict of `transformers`' ``ElectraEmbeddings``: ``word_embeddings.weight [V, E]``,
    ``position_embeddings.weight [S, E]``, ``token_type_embeddings.weight [K, E]``, ``LayerNorm.{weight,bias} [E]``.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        width = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob
        self.site = 0

    def table(self, name: str) -> Tensor:
        """The rows that are looked up in ``word_embeddings``, ``position_embeddings`` or ``token_type_embeddings``."""
        return getattr(self, name).weight

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        rng: Tensor | None = None,
        site: int | None = None,
    ) -> Tensor:
        """``[..., S]`` ids to ``[..., S, E]``.

        Args:
            position_ids, token_type_ids: int64, any shape that broadcasts to ``input_ids``; default 0, 1, 2, … along
                the last dimension, and 0.
            rng, site: of the dropout, in training; ``site`` overrides the module's own, where one module is run twice
                in a step and must draw differently.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        return embed(
            self,
            input_ids,
            position_ids,
            token_type_ids,
            dropout_p=self.dropout_p if self.training else 0.0,
            rng=rng,
            site=self.site if site is None else site,
            tables=tuple(map(self.table, TABLES)),
        )


def embed(
    embeddings: nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor,
    *,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
    tables: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """`electra_fast.ops.embedding` with the tables (unless others are given) of a module that has
    ``ElectraEmbeddings``' names."""
    norm = embeddings.LayerNorm
    if tables is None:
        tables = tuple(getattr(embeddings, name).weight for name in TABLES)
    return ops.embedding(
        input_ids,
        position_ids.expand(input_ids.shape),
        token_type_ids.expand(input_ids.shape),
        *tables,
        norm.weight,
        norm.bias,
        eps=norm.eps,
        dropout_p=dropout_p,
        rng=rng,
        site=site,
        padding_idx=embeddings.word_embeddings.padding_idx,
    )
