"""The ELECTRA encoder: tokens are packed once, before the embeddings, and unpacked once, after the last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast.rng import fresh

from .config import ElectraConfig
from .initialization import initialize
from .pretrained import Pretrained


class ElectraModel(Pretrained, nn.Module):
    """`transformers.ElectraModel`: its state-dict names, its hidden states at every token that the mask keeps.

    Args:
        config: `ElectraConfig`.
        embeddings: a module to share instead of making one, as generator and discriminator do.

    Initialised as Google's code does (`initialization`). In training, dropout draws at the sites 0 (embeddings), then
    three a layer (`electra_fast.nn.assign_sites`).
    """

    def __init__(self, config: ElectraConfig, embeddings: fast.Embeddings | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = fast.Embeddings(config) if embeddings is None else embeddings
        if config.embedding_size != config.hidden_size:
            self.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)
        else:
            self.embeddings_project = None
        self.encoder = fast.Encoder(config)
        initialize(self, config.initializer_range, keep=embeddings)
        fast.assign_sites(self, 0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        rng: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of the last layer.

        Args:
            input_ids: int64, padded ``[B, S]``, or packed ``[T]`` with ``cu_seqlens`` int32 ``[B+1]``.
            attention_mask: ``[B, S]``, non-zero for real tokens, any pattern; padded input only.
            token_type_ids: input_ids' shape; default 0.
            position_ids: input_ids' shape or one that broadcasts to it; default: the index in the padded row, or in the
                packed sequence.
            max_seqlen: an upper bound of the packed sequences' lengths; default: the smaller of T and the position
                table's size.
            rng: int64 ``[2]`` = (seed, step) of the dropout; drawn from torch's generator when absent in training.

        Returns: ``[B, S, N]``, zeros where the mask is zero; or ``[T, N]``.

        Raises: ValueError for a wrong shape, or sequences longer than the position table.
        """
        if input_ids.ndim == 1:
            if cu_seqlens is None or attention_mask is not None:
                raise ValueError("ElectraModel: packed input_ids [T] need cu_seqlens, and take no attention_mask")
            if position_ids is None:
                position_ids = packed_positions(cu_seqlens, input_ids.shape[0])
            if max_seqlen is None:
                max_seqlen = min(input_ids.shape[0], self.config.max_position_embeddings)
            self._check_length(max_seqlen)
            return self._packed(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, rng)

        if input_ids.ndim != 2 or cu_seqlens is not None:
            raise ValueError(
                "ElectraModel: input_ids must have shape [B, S], or [T] with cu_seqlens, "
                f"got {list(input_ids.shape)} with{'out' if cu_seqlens is None else ''} cu_seqlens"
            )
        batch, length = input_ids.shape
        self._check_length(length)
        positions = None
        if attention_mask is None:
            packing, positions, _ = fast.packing.whole_batch(input_ids)
        else:
            if attention_mask.shape != input_ids.shape:
                raise ValueError(
                    f"ElectraModel: attention_mask must have the shape of input_ids, {list(input_ids.shape)}, "
                    f"got {list(attention_mask.shape)}"
                )
            packing = fast.pack_mask(attention_mask)
        if position_ids is not None:
            positions = packing.pack(position_ids.expand(batch, length))
        elif positions is None:
            positions = packing.pack(torch.arange(length, device=input_ids.device).expand(batch, length))
        hidden = self._packed(
            packing.pack(input_ids),
            positions,
            None if token_type_ids is None else packing.pack(token_type_ids.expand(batch, length)),
            packing.cu_seqlens,
            packing.max_seqlen,
            rng,
        )
        return packing.unpack(hidden)

    def encode(self, embedded: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, rng: Tensor | None) -> Tensor:
        """Projection and layers: packed ``[T, embedding_size]`` to ``[T, N]``."""
        return self.encoder(embedded, cu_seqlens, max_seqlen, rng, projection=self.embeddings_project)

    def _packed(self, input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, rng) -> Tensor:
        if self.training and rng is None:
            rng = fresh(input_ids.device)
        return self.encode(self.embeddings(input_ids, position_ids, token_type_ids, rng), cu_seqlens, max_seqlen, rng)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"ElectraModel: sequences may have at most {self.config.max_position_embeddings} tokens "
                f"(max_position_embeddings), got {length}: truncate them"
            )


def packed_positions(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """Index of every packed token within its sequence, int64 ``[T]``; 0 after the last sequence."""
    token = torch.arange(tokens, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:].long(), token, right=True)
    starts = cu_seqlens.long().index_select(0, sequence)
    return torch.where(token < cu_seqlens[-1], token - starts, 0)
