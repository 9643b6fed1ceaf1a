"""Take heads and neurons out of a network, so that what is left is a smaller ELECTRA like any other.

Every layer keeps equally many, since one configuration describes all layers. The hidden size is heads times the size of
a head in Hugging Face's layout, so fewer heads also mean a narrower network: the least important coordinates of the
hidden states go with them. The embeddings keep their size; where they had none, a projection picks the coordinates.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from electra_fast.errors import ConfigError

from .importance import Importance, last_matrix
from .student import load


def check_sizes(config: Any, heads: int | None, intermediate_size: int | None) -> tuple[int, int]:
    """Heads and neurons that a layer keeps; None: all heads, half the neurons.

    Raises:
        ConfigError: not from 1 to what there are, or nothing goes, or the network would be as wide as its embeddings,
            which Hugging Face's layout then does not project.
    """
    heads = config.num_attention_heads if heads is None else heads
    neurons = max(1, config.intermediate_size // 2) if intermediate_size is None else intermediate_size
    for option, kept, there in (
        ("heads", heads, config.num_attention_heads),
        ("intermediate_size", neurons, config.intermediate_size),
    ):
        if not 1 <= kept <= there:
            raise ConfigError(f"{option} must be from 1 to {there}, what the model has, got {kept}")
    if (heads, neurons) == (config.num_attention_heads, config.intermediate_size):
        raise ConfigError("nothing would be pruned: give fewer heads, or a smaller intermediate_size")
    width = heads * (config.hidden_size // config.num_attention_heads)
    if width < config.hidden_size and width == config.embedding_size:
        raise ConfigError(
            f"heads must be another number than {heads}: the network would be as wide as its embeddings ({width}), and "
            "Hugging Face's ELECTRA has no projection between them then"
        )
    return heads, neurons


@torch.no_grad()
def prune(model: nn.Module, importance: Importance, heads: int, neurons: int) -> nn.Module:
    """A network of the same class with the ``heads`` and ``neurons`` of each layer that matter most.

    Args:
        model: a `transformers` classification, token classification, question answering or multiple choice ELECTRA.
    """
    old = model.config
    size = old.hidden_size // old.num_attention_heads
    config = copy.deepcopy(old)
    config.num_attention_heads = heads
    config.hidden_size = heads * size
    config.intermediate_size = neurons
    pruned = type(model)(config)
    width = _largest(importance.width, config.hidden_size)
    theirs = model.state_dict()
    weights = {name: tensor for name, tensor in theirs.items() if name.startswith("electra.embeddings.")}
    weights |= _projection(theirs, width, old.hidden_size)
    for i in range(old.num_hidden_layers):
        columns = (_largest(importance.heads[i], heads).unsqueeze(1) * size + torch.arange(size)).flatten()
        kept = _largest(importance.neurons[i], neurons)
        weights |= _layer(theirs, f"electra.encoder.layer.{i}", width, columns, kept)
    weights |= _head(model, theirs, width, importance.head_neurons)
    load(pruned, weights)
    return pruned


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the largest, in their order."""
    return values.topk(count).indices.sort().values


def _linear(weights: dict[str, Tensor], name: str, rows: Tensor | None, columns: Tensor | None) -> dict[str, Tensor]:
    """Some outputs and some inputs of a matrix; None: all."""
    matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if rows is not None:
        matrix, bias = matrix[rows], bias[rows]
    if columns is not None:
        matrix = matrix[:, columns]
    return {f"{name}.weight": matrix, f"{name}.bias": bias}


def _projection(weights: dict[str, Tensor], width: Tensor, hidden_size: int) -> dict[str, Tensor]:
    name = "electra.embeddings_project"
    if f"{name}.weight" in weights:
        return _linear(weights, name, width, None)
    if len(width) == hidden_size:
        return {}
    picks = torch.eye(hidden_size, dtype=weights["electra.embeddings.LayerNorm.weight"].dtype)[width]
    return {f"{name}.weight": picks, f"{name}.bias": picks.new_zeros(len(width))}


def _layer(weights: dict[str, Tensor], name: str, width: Tensor, columns: Tensor, neurons: Tensor) -> dict[str, Tensor]:
    kept = {}
    for part in ("query", "key", "value"):
        kept |= _linear(weights, f"{name}.attention.self.{part}", columns, width)
    kept |= _linear(weights, f"{name}.attention.output.dense", width, columns)
    kept |= _linear(weights, f"{name}.intermediate.dense", neurons, width)
    kept |= _linear(weights, f"{name}.output.dense", width, neurons)
    for norm in (f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"):
        kept |= {f"{norm}.{part}": weights[f"{norm}.{part}"][width] for part in ("weight", "bias")}
    return kept


def _head(model: nn.Module, weights: dict[str, Tensor], width: Tensor, importance: Tensor | None) -> dict[str, Tensor]:
    """The task's matrices: the one that reads hidden states, and one behind it, which keeps as many neurons."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = [name for name in names if not name.startswith("electra.")]
    last = last_matrix(model)
    if last is None:
        (name,) = names
        return _linear(weights, name, None, width)
    (first,) = (name for name in names if model.get_submodule(name) is not last)
    (second,) = (name for name in names if model.get_submodule(name) is last)
    rows = _largest(importance, len(width))
    return _linear(weights, first, rows, width) | _linear(weights, second, None, rows)
