"""What the matrix products of a network, and of a pretraining step, come to: the one count behind every share of a peak
(the MFU of a run, "of roof" in benchmarks, the cost table of docs/pretraining.md).

The convention: a multiply-add is two operations; looking up an embedding is none; the backward pass is twice the
forward; the vocabulary is only met at chosen positions; padding, and what activation checkpointing computes again, do
not count. Biases, activations, norms, softmax and dropout are left out, since the peak is one of products. Google's
script (google-research/electra ``flops_computation.py``) counts those too, and so comes to 0 to 3 % more.
"""

from __future__ import annotations

from .config import ElectraConfig

_FORWARD_AND_BACKWARD = 3.0


def encoder_flops(config: ElectraConfig, tokens: float, pairs: float) -> float:
    """Forward: projection of the embeddings, and all layers.

    Args:
        tokens: real ones, of all sequences.
        pairs: of tokens that see each other: the sum of the squared lengths.
    """
    n = config.hidden_size
    linear = 2.0 * tokens * (4 * n * n + 2 * n * config.intermediate_size)
    attention = 4.0 * n * pairs
    project = 2.0 * tokens * config.embedding_size * n if config.embedding_size != n else 0.0
    return config.num_hidden_layers * (linear + attention) + project


def step_flops(config: ElectraConfig, tokens: float, pairs: float) -> float:
    """Forward and backward of both networks and their heads, for ``tokens`` of which the mask chooses its share.

    The clipping and the optimiser have no products. For ``tokens, pairs`` see `encoder_flops`.
    """
    n = config.hidden_size
    flops = encoder_flops(config, tokens, pairs) + 2.0 * tokens * n * (n + 1)
    if not config.pretraining.uniform_generator:
        generator = config.generator()
        chosen = tokens * config.pretraining.mask_probability
        head = generator.hidden_size * config.embedding_size + config.embedding_size * config.vocab_size
        flops += encoder_flops(generator, tokens, pairs) + 2.0 * chosen * head
    return _FORWARD_AND_BACKWARD * flops
