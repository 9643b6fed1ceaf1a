"""Going on from networks that were trained before: their sizes, a longer position table, and the shared embeddings.

Published ELECTRAs are two Hugging Face directories, a discriminator and a generator of another width, each with its own
copy of the embeddings that they shared in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from electra_fast.errors import ConfigError

from .config import ElectraConfig
from .embedding_sharing import TABLES, differences
from .heads import ElectraForMaskedLM
from .pretraining import ElectraPretrainingPair

Weights = Mapping[str, Tensor]
SHARED = ("embedding_size", "type_vocab_size", "layer_norm_eps")  # one value for both networks
OWN = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
POSITIONS = "electra.embeddings.position_embeddings.weight"
EMBEDDINGS = tuple(
    f"electra.embeddings.{name}" for name in (*(f"{t}.weight" for t in TABLES), "LayerNorm.weight", "LayerNorm.bias")
)


def network_values(
    discriminator: ElectraConfig | None, generator: ElectraConfig | None, fallback: ElectraConfig
) -> dict[str, Any]:
    """Fields of `ElectraConfig` and `PretrainingConfig` that describe these networks; at least one is given.

    Args:
        fallback: whose discriminator is meant where none is given.

    Raises:
        ConfigError: the two cannot be trained together.
    """
    given = [config for config in (discriminator, generator) if config is not None]
    for name in (*SHARED, "vocab_size"):
        if len({getattr(config, name) for config in given}) > 1:
            first, second = (getattr(config, name) for config in given)
            raise ConfigError(
                f"the checkpoints do not belong together: the discriminator has {name} {first}, the generator {second}"
            )
    values = {name: getattr(given[0], name) for name in SHARED}
    values["max_position_embeddings"] = max(config.max_position_embeddings for config in given)
    if discriminator is not None:
        values |= {name: getattr(discriminator, name) for name in OWN}
    if generator is not None:
        main = fallback if discriminator is None else discriminator
        values |= {
            "generator_hidden_fraction": generator.hidden_size / main.hidden_size,
            "generator_layers_fraction": generator.num_hidden_layers / main.num_hidden_layers,
            "generator_attention_heads": generator.num_attention_heads,
            "generator_intermediate_size": generator.intermediate_size,
        }
    return values


def extend_positions(weights: Weights, rows: int) -> dict[str, Tensor]:
    """The weights with a position table of ``rows`` rows: those there are, and then the same again from the first on.

    Repeating keeps what a short sequence computes to the bit, and gives new rows the differences between neighbours
    that attention has learned to use (Beltagy et al. 2020, "Longformer", section 5); interpolating would change every
    row. Only places one table's length apart cannot be told apart at first.

    Raises:
        ConfigError: the table would become shorter.
    """
    table = weights[POSITIONS]
    if rows < table.shape[0]:
        raise ConfigError(
            f"max_position_embeddings cannot become smaller than the checkpoint's {table.shape[0]}, got {rows}: leave "
            "it out"
        )
    repeated = table.index_select(0, torch.arange(rows) % table.shape[0])
    return {**weights, POSITIONS: repeated}


def largest_difference(discriminator: Weights, generator: Weights) -> float:
    """Between the two copies of what is shared in training; 0 in every release of Google's."""
    return max((discriminator[name].float() - generator[name].float()).abs().max().item() for name in EMBEDDINGS)


def load_networks(pair: ElectraPretrainingPair, discriminator: Weights | None, generator: Weights | None) -> None:
    """Put the weights of one or both networks, under Hugging Face's names, into the pair.

    Embeddings shared in full are the discriminator's, if there is one. Under GDES its tables become differences to the
    generator's, so that the networks compute what the checkpoints did.

    Raises:
        ConfigError: the pair has no network of that kind.
    """
    if generator is not None:
        if not isinstance(pair.generator, ElectraForMaskedLM):
            raise ConfigError("init_generator: this run has no generator network to start from it (uniform_generator)")
        pair.generator.load_state_dict(generator)
    if discriminator is not None:
        if pair.config.pretraining.embedding_sharing == "gdes":
            discriminator = differences(dict(discriminator), pair.generator.state_dict())
        pair.discriminator.load_state_dict(discriminator)
