"""What the modules read from a configuration: `ElectraConfig` has it, and so has `transformers.ElectraConfig`."""

from __future__ import annotations

from typing import Protocol


class Sizes(Protocol):
    """Sizes and rates of an encoder, under Hugging Face's names."""

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int | None
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
