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
    """Forward and, of what is trained, backward, for ``tokens`` of which the mask chooses its share.

    The clipping and the optimiser have no products. What a temperature schedule adds (the generator's logits once more,
    forward) is left out. In a causal attention half of the pairs count. For ``tokens, pairs`` see `encoder_flops`.
    """
    recipe = config.pretraining
    discriminator = encoder_flops(config, tokens, pairs) + 2.0 * tokens * config.hidden_size * (config.hidden_size + 1)
    chosen = tokens * recipe.mask_probability
    if recipe.objective == "mlm":
        return _FORWARD_AND_BACKWARD * (encoder_flops(config, tokens, pairs) + _vocabulary_flops(config, chosen))
    if recipe.uniform_generator:
        return _FORWARD_AND_BACKWARD * discriminator
    generator = config.generator()
    if recipe.objective == "electric":  # two towers that see one side each, all tokens predicted, the draws looked up
        towers = 2 * encoder_flops(generator, tokens, pairs / 2)
        head = _vocabulary_flops(generator, tokens, inputs=2)
        drawn = 2.0 * chosen * config.embedding_size * config.vocab_size
        return _FORWARD_AND_BACKWARD * (discriminator + towers + head) + drawn
    noise = encoder_flops(generator, tokens, pairs) + _vocabulary_flops(generator, chosen)
    return _FORWARD_AND_BACKWARD * discriminator + noise * (1.0 if recipe.freeze_generator else _FORWARD_AND_BACKWARD)


def _vocabulary_flops(config: ElectraConfig, predicted: float, inputs: int = 1) -> float:
    """Forward, from ``inputs`` hidden states of each predicted token to its logits."""
    width = config.embedding_size
    return 2.0 * predicted * (inputs * config.hidden_size * width + width * config.vocab_size)
