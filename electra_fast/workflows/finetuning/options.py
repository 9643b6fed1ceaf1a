"""Every option of fine-tuning in one table: on the command line, and in Python, under the same names.

Importing this table imports neither torch nor transformers, so that the command line's help is quick.
"""

# ruff: noqa: RUF009, since option() is only a dataclass field with its help

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_fast.errors import ConfigError
from electra_fast.workflows.option_table import check_choices, option

PATHS = ("train", "dev", "test", "output")
# What a resumed run may be given anew, because it does not change what is learned.
CHANGEABLE = frozenset(("output", "threads", "log_every", "keep_checkpoints", "device"))


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of a fine-tuning run; None means what the help says.

    Raises:
        ConfigError: an option is ill-typed, out of range or at odds with another.
    """

    task: str = option(
        "Run", "What to learn.", "classification", choices=("classification", "ner", "qa", "choice", "translation")
    )
    model: str | os.PathLike | None = option(
        "Run", "Pretraining run, its model directory, any Hugging Face ELECTRA directory, or a name in the local cache."
    )
    train: str | os.PathLike | None = option("Run", "Training data: tsv, csv, jsonl, parquet, or the task's format.")
    dev: str | os.PathLike | None = option(
        "Run", "Data by which checkpoints are compared. Default: dev_fraction of the training data."
    )
    test: str | os.PathLike | None = option("Run", "Data that the best model is scored on once, at the end.")
    output: str | os.PathLike | None = option("Run", "Directory for the run; the model to use is its best/.")
    seeds: str | int | tuple | list = option(
        "Run", "One run for each, as 0,1,2: weights of the head, order, dropout. Median and spread are reported.", "0"
    )
    precision: str = option(
        "Run",
        "bf16 is autocast, the weights stay fp32; auto is whichever a short measurement finds faster.",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = option("Run", "cpu, cuda, cuda:1, … or auto: a GPU if there is one.", "auto")
    threads: int | None = option("Run", "CPU threads. Default: torch's.")
    backend: str = option(
        "Run",
        "transformers: the same recipe without our kernels, for comparison.",
        "electra_fast",
        choices=("electra_fast", "transformers"),
    )
    from_scratch: bool = option("Run", "Random weights instead of the checkpoint's, for comparison.", False)

    text_column: str | None = option("Data", "Column of the text. Default: text, sentence, sentence1, … if there.")
    pair_column: str | None = option("Data", "Column of the second text, if the task is about two.")
    label_column: str | None = option("Data", "Column of the label. Default: label, labels, score, … if there.")
    weight_column: str | None = option(
        "Data", "Classification and ner: column of what a training row counts in the loss. Default: all count 1."
    )
    source_column: str | None = option("Data", "Translation: column of the text to translate.")
    target_column: str | None = option("Data", "Translation: column of its translation.")
    problem: str = option(
        "Data",
        "Classification: one label a row, any number of labels, or a number. auto: told from the label column.",
        "auto",
        choices=("auto", "single", "multi", "regression"),
    )
    label_separator: str = option("Data", "Between several labels in one field of a tsv or csv file.", ",")
    dev_fraction: float = option("Data", "Share of the training data that is held out where no dev is given.", 0.1)
    max_length: int | None = option("Data", "Most tokens of a row. Default: the task's, at most what the model reads.")
    doc_stride: int = option("Data", "Question answering: tokens that neighbouring windows of a text share.", 128)
    normalize: str = option(
        "Data", "Unicode normal form that texts are brought into.", "nfc", choices=("none", "nfc", "nfkc")
    )
    control_characters: str = option(
        "Data",
        "Control and zero-width characters: removed (tabs and line ends become spaces), or kept.",
        "remove",
        choices=("remove", "keep"),
    )
    missing: str = option(
        "Data", "Rows without text or label: left out, filled, or an error.", "drop", choices=("drop", "fill", "refuse")
    )
    fill_text: str = option("Data", "What a missing text is filled with.", "")
    fill_label: str | None = option("Data", "What a missing label is filled with.")
    duplicates: str = option(
        "Data", "Rows that are there before: kept, left out, or an error.", "keep", choices=("keep", "drop", "refuse")
    )

    epochs: float | None = option("Schedule", "Passes over the data. Default: the task's (3; question answering 2).")
    max_steps: int | None = option("Schedule", "Instead of epochs: optimiser steps.")
    batch_size: int | None = option("Schedule", "Rows of an optimiser step. Default: 32; translation 128.")
    accumulation: int = option("Schedule", "Parts that a step is processed in, to save memory.", 1)
    learning_rate: float | None = option("Schedule", "Peak. Default: the size's (3e-4 small, 1e-4 base, 5e-5 large).")
    warmup: float = option("Schedule", "Share of all steps in which the learning rate rises.", 0.1)
    layer_decay: float | None = option(
        "Schedule", "Each layer learns slower than the one above by this factor. Default: the size's (0.8; large 0.9)."
    )
    published_decay: bool = option(
        "Schedule", "Layer-wise exponents as google-research/electra has them: one too many for every layer.", False
    )
    early_stopping: int = option("Schedule", "Stop after so many evaluations without a better one; 0: never.", 0)
    eval_every: int | None = option("Schedule", "Steps between evaluations. Default: an epoch.")
    metric: str | None = option(
        "Schedule", "Figure by which models are compared. Default: the task's; see the summary."
    )
    group_by_length: bool = option("Schedule", "Batches of rows of similar length.", False)

    optimizer: str | None = option(
        "Optimiser",
        "electra: Adam without bias correction, as published. adamw: torch's. Default: electra; translation adamw.",
        choices=("electra", "adamw"),
    )
    weight_decay: float = option("Optimiser", "Decoupled, times the learning rate; not on biases, layer norms.", 0.01)
    adam_beta1: float = option("Optimiser", "Decay of the mean of the gradients.", 0.9)
    adam_beta2: float | None = option(
        "Optimiser", "Decay of the mean of their squares. Default: 0.999; translation 0.98."
    )
    adam_epsilon: float = option("Optimiser", "Added to the root of the latter.", 1e-6)
    clip_norm: float = option("Optimiser", "Global norm that gradients are clipped to; 0: not at all.", 1.0)
    dropout: float = option("Optimiser", "Of embeddings, layers, attention and head.", 0.1)
    reinit_layers: int = option(
        "Optimiser", "How many of the encoder's uppermost layers start from random weights, not the checkpoint's.", 0
    )
    freeze_encoder: bool = option("Optimiser", "Train the head (or decoder) alone, on the checkpoint's states.", False)
    class_weights: str | None = option(
        "Optimiser", "balanced: by inverse frequency; or each label's as good=1,bad=2.5. Default: all equal."
    )
    label_smoothing: float | None = option(
        "Optimiser", "Share of a target that is spread over all labels. Default: 0; translation 0.1."
    )

    decoder_layers: int = option("Translation", "Layers of the decoder, which starts from random weights.", 3)
    decoder_learning_rate: float | None = option(
        "Translation", "Peak of the decoder's learning rate; learning_rate is the encoder's. Default: 1e-3."
    )
    target_vocab_size: int = option(
        "Translation", "Entries of the target's tokenizer, which is trained on the training data's translations.", 8000
    )
    beams: int = option("Translation", "Width of the search for a translation; 1: greedy. Greedy between steps.", 4)
    length_penalty: float = option(
        "Translation", "Exponent α of what log-probabilities are divided by, ((5 + length) / 6)^α.", 0.6
    )

    log_every: int = option("Reports", "Steps between lines of metrics.jsonl.", 10)
    keep_checkpoints: bool = option(
        "Reports", "Keep a seed's checkpoints when it is done, not only its best model.", False
    )

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_probability, check_types

        check_types(self)
        check_choices(self)
        check_at_least(self, 1, "threads", "batch_size", "accumulation", "max_steps", "eval_every", "log_every")
        check_at_least(self, 8, "max_length")
        check_at_least(self, 1, "doc_stride", "decoder_layers", "target_vocab_size", "beams")
        check_at_least(self, 0, "early_stopping", "weight_decay", "clip_norm", "length_penalty", "reinit_layers")
        check_probability(self, "warmup", "dropout", "label_smoothing", "adam_beta1", "adam_beta2")
        for name in ("epochs", "learning_rate", "decoder_learning_rate", "layer_decay", "adam_epsilon"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be greater than 0, got {value}")
        if self.layer_decay is not None and self.layer_decay > 1:
            raise ConfigError(f"layer_decay must be at most 1 (1: all layers learn alike), got {self.layer_decay}")
        if not 0 < self.dev_fraction < 1:
            raise ConfigError(f"dev_fraction must be between 0 and 1, got {self.dev_fraction}")
        if self.epochs is not None and self.max_steps is not None:
            raise ConfigError("epochs and max_steps exclude each other: give one of them")
        if not self.label_separator:
            raise ConfigError("label_separator must not be empty")
        if self.batch_size is not None and self.batch_size % self.accumulation:
            raise ConfigError(
                f"accumulation must divide batch_size into equal parts, got {self.accumulation} for {self.batch_size}"
            )
        for name in PATHS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _absolute(os.fspath(value), self.task == "translation"))
        if self.model is not None:
            object.__setattr__(self, "model", os.fspath(self.model))
        object.__setattr__(self, "seeds", _seeds(self.seeds))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FinetuneOptions:
        """Options by name. ConfigError for an unknown name suggests the nearest known one."""
        from electra_fast.models.fields import check_keys

        check_keys("electra-fast finetune", values, (f.name for f in dataclasses.fields(cls)))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, options that were left out not included."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def required(self, name: str) -> str:
        """A path that has to be given. ConfigError: it is not."""
        value = getattr(self, name)
        if value is None:
            raise ConfigError(f"{name} is missing: name {_NEEDED[name]} (--{name})")
        return value

    @property
    def output_path(self) -> Path:
        return Path(self.required("output"))


_NEEDED = {
    "model": "a pretraining run, or a directory with an ELECTRA",
    "train": "a file with training data",
    "output": "a directory for the run",
}


def _absolute(path: str, parallel: bool) -> str:
    """From the root, so that a run can be gone on with from another directory. parallel: maybe two, with a comma."""
    parts = path.split(",") if parallel and not os.path.exists(path) else [path]
    return ",".join(map(os.path.abspath, parts))


def _seeds(given: Any) -> list[int]:
    """Different whole numbers from 0 on, of a list or of text such as 0,1,2."""
    parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else given
    try:
        seeds = [int(part) for part in parts]
    except (TypeError, ValueError):
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be different whole numbers from 0 to 2^32 - 1, such as 0,1,2, got {given!r}")
    return seeds
