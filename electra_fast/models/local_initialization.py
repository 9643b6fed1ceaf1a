"""Initial weights whose attention heads look at the neighbours, for pretraining on little text.

With the usual initialisation attention is uniform, and learning *where* to look has to come before learning anything
from what stands there: on a few megabytes of text thousands of steps pass on that plateau. Here positions start as
sinusoids, and every head's query is its key rotated by a fixed offset, so that it attends to the token before, the one
after, or the second before or after. Nothing is fixed: all of it is trained from there on, and the network is the same.

That is ``local``. ``local-glorot`` also starts the linear layers with Glorot's deviation instead of 0.02, so that more
of what was looked at reaches the output. Networks of 128 leave the plateau sooner by it, those of 256 do not; but the
states of a network that began so are nearly alike for all tokens, and fine-tuning for translation is the worse for it
(docs/notes/fine-tuning-a-short-run.md): it is for a short run that is an end in itself.

The idea of starting attention from a useful pattern is that of Trockman and Kolter, "Mimetic Initialization of
Self-Attention Layers" (ICML 2023); sinusoids are rotated by an offset as in Vaswani et al. 2017, section 3.5. Figures:
docs/notes/demo-recipe.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from electra_fast.errors import ConfigError

if TYPE_CHECKING:
    from .encoder import ElectraModel

OFFSETS = (-1, 1, -2, 2)  # of the heads, in turn; networks with a single head take the next one in every layer
FREQUENCIES = 8
SLOWEST = 40.0  # the ratio of the fastest frequency (1 radian a token) to the slowest
LOUDNESS = 3.0  # amplitude of the positions over the deviation of the words
SHARPNESS = 8.0  # the logit at the offset itself: about half of the attention goes there, most of the rest beside it


def initialize_locally(networks: list[ElectraModel], standard_deviation: float, glorot: bool = False) -> None:
    """Give networks, initialised as usual, with embeddings that they may share, local attention.

    With D = 2 · 8 numbers of the embedding for the position p, ``P[p, 2k:2k+2] = a (cos ω_k p, sin ω_k p)``,
    ``ω_k = 40^(-k/7)``, ``W_k = [I_D 0]`` and ``W_q = c [R(offset) 0]`` in every head's first D rows, where R rotates
    each pair by ``ω_k · offset``, query i and key j have ``q·k = c a² Σ_k cos ω_k (j - i - offset)``.

    Args:
        standard_deviation: of the word embeddings (``initializer_range``).
        glorot: draw the layers' linear weights, but for queries and keys, with Glorot's deviation.

    Raises:
        ConfigError: a head is too small to hold a position (4 numbers).
    """
    size = min([head_size(network) for network in networks] + [networks[0].config.embedding_size // 2])
    frequencies = min(FREQUENCIES, size // 2)
    if frequencies < 2:
        raise ConfigError(
            f"initialization local needs heads of at least 4 numbers in both networks, got {size}: use fewer "
            "num_attention_heads, or initialization google"
        )
    omega = SLOWEST ** -(torch.arange(frequencies) / (frequencies - 1))
    for embeddings in dict.fromkeys(network.embeddings for network in networks):
        _positions(embeddings.position_embeddings.weight.data, omega, LOUDNESS * standard_deviation)
        embeddings.word_embeddings.weight.data[:, : 2 * frequencies] = 0
    for network in networks:
        if network.embeddings_project is not None:
            _pass_through(network.embeddings_project.weight.data, 2 * frequencies)
        for number, layer in enumerate(network.encoder.layer):
            attention = layer.attention.self
            looking = (attention.query, attention.key)
            if glorot:
                for linear in (m for m in layer.modules() if isinstance(m, nn.Linear) and m not in looking):
                    nn.init.xavier_normal_(linear.weight)
            _look_around(attention.query.weight.data, attention.key.weight.data, omega, network, number)


def head_size(network: ElectraModel) -> int:
    return network.config.hidden_size // network.config.num_attention_heads


def _positions(table: Tensor, omega: Tensor, amplitude: float) -> None:
    angle = torch.arange(table.shape[0])[:, None] * omega
    table[:, 0 : 2 * len(omega) : 2] = amplitude * torch.cos(angle)
    table[:, 1 : 2 * len(omega) : 2] = amplitude * torch.sin(angle)


def _pass_through(projection: Tensor, size: int) -> None:
    """Positions reach the first numbers of the hidden states as they are."""
    projection[:size] = 0
    projection[:size, :size] = torch.eye(size)


def _look_around(query: Tensor, key: Tensor, omega: Tensor, network: ElectraModel, layer: int) -> None:
    """The first rows of every head: its key is the position, its query the position rotated by the head's offset."""
    heads, size, width = network.config.num_attention_heads, head_size(network), 2 * len(omega)
    for head in range(heads):
        offset = OFFSETS[(head + layer * heads) % len(OFFSETS)]
        rows = slice(head * size, head * size + width)
        key[rows] = 0
        query[rows] = 0
        key[rows, :width] = torch.eye(width)
        query[rows, :width] = _sharpness(network, len(omega)) * torch.block_diag(*_rotations(omega * offset))


def _rotations(angles: Tensor) -> list[Tensor]:
    return [torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in angles.tolist()]


def _sharpness(network: ElectraModel, frequencies: int) -> float:
    """The factor c that makes the scaled logit at the offset itself `SHARPNESS`, after the embeddings' layer norm."""
    width = network.config.embedding_size
    sinusoids = 2 * frequencies
    # In units of the words' variance: word, position and segment, but for a position's numbers: sinusoid and segment.
    variance = (3 * (width - sinusoids) + (LOUDNESS**2 / 2 + 1) * sinusoids) / width
    amplitude = LOUDNESS / math.sqrt(variance)
    return SHARPNESS * math.sqrt(head_size(network)) / (frequencies * amplitude**2)
