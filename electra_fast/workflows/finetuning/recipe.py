"""ELECTRA's recipe for fine-tuning: what is trained how fast, by the size of the network.

Source: google-research/electra ``configure_finetuning.py`` and ``model/optimization.py``; 3e-4 for the small model is
the paper's. The learning rate of a parameter at depth d is ``peak · decay^(n + 1 - d)``: 0 are embeddings, d = i + 1
is layer i of n, n + 1 is the head. The published code had ``n + 2 - d`` for everything below the head, so that the last
layer learned as if there were another one above it; its results were made that way (`published`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from electra_fast.optim import ElectraAdam, parameter_groups, polynomial_schedule

from .options import FinetuneOptions

# Of the encoder, which is called electra, or in an encoder-decoder encoder; the decoder counts as the head.
_ENCODER = r"^(?!decoder\.)(?:.+\.)?(?:electra|encoder)\."
_LAYER = re.compile(_ENCODER + r"encoder\.layer\.(\d+)\.")
_EMBEDDINGS = re.compile(_ENCODER + r"embeddings(?:_project)?\.")
_DECODER_RATE = 1e-3  # of a decoder that starts from random weights, as docs/translation.md has it
_FEW_ROWS = 6000  # RTE and STS, which the published recipe gives 10 epochs, have 2,490 and 5,749


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the updates but the data: peak learning rate, layer-wise decay, steps, warm-up.

    ``head_factor``: how much faster than that the head learns, where it is as large as a decoder.
    """

    learning_rate: float
    layer_decay: float
    published: bool
    epochs: float
    max_steps: int | None
    warmup: float
    head_factor: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_SIZES = ((256, 3e-4, 0.8), (768, 1e-4, 0.8), (10**9, 5e-5, 0.9))  # widest hidden size, learning rate, layer decay


def recipe_for(options: FinetuneOptions, hidden_size: int, rows: int, default_epochs: float) -> Recipe:
    """The options, with the size's values where they say nothing.

    Random weights have nothing to be kept: without ``layer_decay`` all their layers learn alike.

    Args:
        rows: of the training data. default_epochs: the task's.
    """
    rate, decay = next((rate, decay) for widest, rate, decay in _SIZES if hidden_size <= widest)
    if options.from_scratch:
        decay = 1.0
    if default_epochs == 3.0 and rows < _FEW_ROWS:
        default_epochs = 10.0
    head_rate = (options.decoder_learning_rate or _DECODER_RATE) if options.task == "translation" else None
    if options.from_scratch and head_rate is not None:
        rate = head_rate
    rate = rate if options.learning_rate is None else options.learning_rate
    return Recipe(
        learning_rate=rate,
        layer_decay=decay if options.layer_decay is None else options.layer_decay,
        published=options.published_decay,
        epochs=default_epochs if options.epochs is None else options.epochs,
        max_steps=options.max_steps,
        warmup=options.warmup,
        head_factor=1.0 if head_rate is None else head_rate / rate,
    )


def depth_of(name: str, layers: int) -> int:
    """Depth of a parameter by its name: embeddings 0, layer i: i + 1, everything else (the head): layers + 1."""
    if _EMBEDDINGS.search(name):
        return 0
    layer = _LAYER.search(name)
    return int(layer[1]) + 1 if layer else layers + 1


def rate_factor(name: str, layers: int, recipe: Recipe) -> float:
    """What the peak learning rate is multiplied by for a parameter."""
    exponent = layers + 1 - depth_of(name, layers)
    if exponent == 0:
        return recipe.head_factor
    return recipe.layer_decay ** (exponent + 1 if recipe.published else exponent)


def make_optimizer(model: nn.Module, options: FinetuneOptions, recipe: Recipe) -> torch.optim.Optimizer:
    """ELECTRA's Adam, or torch's AdamW, with a group for each learning rate, decayed and not."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = 1 + max((int(found[1]) for found in map(_LAYER.search, names.values()) if found), default=-1)
    groups = [
        {"params": parameters, "weight_decay": group["weight_decay"], "lr": recipe.learning_rate * factor}
        for group in parameter_groups(model, options.weight_decay)
        for factor, parameters in _by_factor(group["params"], names, layers, recipe)
    ]
    betas = (options.adam_beta1, 0.999 if options.adam_beta2 is None else options.adam_beta2)
    if options.optimizer != "adamw":
        return ElectraAdam(groups, recipe.learning_rate, betas, options.adam_epsilon)
    return torch.optim.AdamW(groups, recipe.learning_rate, betas, options.adam_epsilon)


def make_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear decay to 0 at ``steps``, times a linear rise in their first part; the first update's rate is 0."""
    rising = round(warmup * steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: polynomial_schedule(step, 1.0, rising, steps))


def _by_factor(
    parameters: Iterable[nn.Parameter], names: dict[int, str], layers: int, recipe: Recipe
) -> Iterable[tuple[float, list[nn.Parameter]]]:
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault(rate_factor(names[id(parameter)], layers, recipe), []).append(parameter)
    return found.items()
