"""Every option of compressing a model: on the command line, and in Python, under the same names."""

# ruff: noqa: RUF009, since option() is only a dataclass field with its help

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from electra_fast.errors import ConfigError
from electra_fast.workflows.option_table import check_choices, option

METHODS = ("distill", "int8", "prune")
# What only some methods have a use for.
_ONLY = {
    "train": ("distill", "prune"),
    "layers": ("distill",),
    "hidden_size": ("distill",),
    "heads": ("distill", "prune"),
    "intermediate_size": ("distill", "prune"),
}


@dataclass(frozen=True)
class CompressOptions:
    """Options of making a model smaller; None means what the help says.

    Raises:
        ConfigError: an option is ill-typed, out of range, missing, or of no use to the method.
    """

    model: str | os.PathLike = option("Run", "Fine-tuned model: a run of finetune, or its best/.")
    method: str = option(
        "Run",
        "distill: a smaller student learns from the model. int8: products in 8 bits, on CPUs. prune: the least "
        "important heads and neurons go, the rest is retrained.",
        choices=METHODS,
    )
    output: str | os.PathLike = option("Run", "Directory for the smaller model.")
    dev: str | os.PathLike = option("Run", "Held-out data that both models are scored on.")
    train: str | os.PathLike | None = option("Run", "distill, prune: training data, as finetune takes it.")
    overwrite: bool = option("Run", "Replace what an earlier compress wrote to the output.", False)
    precision: str = option(
        "Run",
        "Of training, and of measuring. bf16 is autocast; auto is what is faster.",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = option("Run", "cpu, cuda, cuda:1, … or auto: a GPU if there is one.", "auto")
    threads: int | None = option("Run", "CPU threads. Default: torch's.")

    layers: int | None = option("Size", "distill: layers of the student. Default: half the model's.")
    hidden_size: int | None = option("Size", "distill: width of the student. Default: the model's.")
    heads: int | None = option(
        "Size",
        "Attention heads of a layer. distill: default by width. prune: default all; with fewer, the network gets "
        "narrower in the same proportion.",
    )
    intermediate_size: int | None = option(
        "Size", "Neurons of a feed-forward part. distill: default by width. prune: default half the model's."
    )

    temperature: float = option("Teaching", "What logits are divided by before they are compared.", 2.0)
    soft_weight: float = option("Teaching", "Share of the loss that is the teacher's instead of the labels'.", 0.5)
    hidden_weight: float | None = option(
        "Teaching", "Weight of the difference of hidden states. Default: 1 to distill, 0 to retrain what was pruned."
    )
    importance_examples: int = option("Teaching", "prune: training rows that importance is measured on.", 256)

    epochs: float | None = option("Training", "Passes over the training data. Default: the task's, as in finetune.")
    max_steps: int | None = option("Training", "Instead of epochs: optimiser steps.")
    batch_size: int = option("Training", "Rows of a step.", 32)
    learning_rate: float | None = option("Training", "Peak. Default: the size's, as in finetune.")
    dropout: float = option("Training", "Of embeddings, layers, attention and head.", 0.1)
    seed: int = option("Training", "Of the order of rows, dropout, and weights that are new.", 0)

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_probability, check_types

        for name in ("model", "method", "output", "dev"):
            if getattr(self, name) is None:
                raise ConfigError(f"{name} is missing: name {_NEEDED[name]}")
        check_types(self)
        check_choices(self)
        for name, methods in _ONLY.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ConfigError(f"{name} is for method {' or '.join(methods)}, got it with method {self.method}")
        if self.train is None and self.method in _ONLY["train"]:
            raise ConfigError(f"train is missing: method {self.method} needs training data")
        check_at_least(self, 1, "threads", "importance_examples", "max_steps", "batch_size")
        check_at_least(self, 0, "hidden_weight", "seed")
        check_probability(self, "dropout")
        if not 0 <= self.soft_weight <= 1:
            raise ConfigError(f"soft_weight must be from 0 to 1, got {self.soft_weight}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ConfigError(f"temperature must be greater than 0, got {self.temperature}")
        for name in ("model", "output", "dev", "train"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, os.path.abspath(os.fspath(value)))


_NEEDED = {
    "model": "a fine-tuned model",
    "method": f"one of {', '.join(METHODS)}",
    "output": "a directory for the smaller model",
    "dev": "a file of held-out data, to measure what is lost",
}
