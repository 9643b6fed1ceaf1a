"""From what the user names to networks and tokenizers: pretraining runs, Hugging Face directories, cached names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.errors import CheckpointError
from electra_fast.extras import require

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_INSIDE = ("", "model/discriminator", "discriminator", "best")


def resolve(model: str | Path) -> str:
    """The directory of the encoder in ``model``: itself, or that of a pretraining or fine-tuning run; else the name.

    Raises:
        CheckpointError: a directory without an ELECTRA in it, or neither a directory nor a name in the local cache.
    """
    folder = Path(model)
    for inner in _INSIDE:
        if (folder / inner / "config.json").is_file():
            return str(folder / inner)
    if folder.exists():
        raise CheckpointError(
            f"{model} holds no model (no config.json there, nor in model/discriminator): give the directory of a "
            "finished pretraining run, or one that transformers saved"
        )
    if _cached(str(model)):
        return str(model)
    raise CheckpointError(
        f"there is no model {model}: no directory of that name, and nothing in the local Hugging Face cache"
    )


def load_config(checkpoint: str) -> PretrainedConfig:
    """The configuration. CheckpointError: it is damaged, or not an ELECTRA's."""
    transformers = require("transformers", "finetune", "fine-tuning")
    with _as_checkpoint_error(checkpoint):
        config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    if config.model_type != "electra":
        raise CheckpointError(f"{checkpoint} holds a model of type {config.model_type!r}, expected 'electra'")
    return config


def load_tokenizer(checkpoint: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, a fast one, to which "[SEP]" written in a text is five characters.

    Raises:
        CheckpointError: there is none, or none with offsets.
    """
    transformers = require("transformers", "finetune", "fine-tuning")
    with _as_checkpoint_error(checkpoint):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint, local_files_only=True, split_special_tokens=True
        )
    if not tokenizer.is_fast:
        raise CheckpointError(f"{checkpoint} has no tokenizer.json: a fast tokenizer is needed")
    return tokenizer


def make_model(head: type, checkpoint: str, *, pretrained: bool, dropout: float, **config: Any) -> nn.Module:
    """A `transformers` model of class ``head`` on the checkpoint's encoder, in float32.

    Args:
        head: such as ``transformers.ElectraForSequenceClassification``. Its weights are drawn from torch's generator.
        pretrained: False: those of the encoder are, too.
        dropout: of embeddings, layers, attention and head.
        config: further entries of the configuration: num_labels, id2label, problem_type.

    Raises:
        CheckpointError: damaged or missing weights.
    """
    values = load_config(checkpoint)
    values.update(
        {
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "classifier_dropout": dropout,
            "summary_last_dropout": dropout,
            **config,
        }
    )
    if not pretrained:
        return head(values)
    import torch

    with _as_checkpoint_error(checkpoint), quiet():
        return head.from_pretrained(
            checkpoint, config=values, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )


def load_model(head: type, directory: str | Path) -> nn.Module:
    """A model of class ``head`` as it was saved, from safetensors. CheckpointError: damaged or missing."""
    with _as_checkpoint_error(directory), quiet():
        return head.from_pretrained(directory, use_safetensors=True, local_files_only=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep `transformers`' remarks below errors, and its bars, from the user: that a head is new is what fine-tuning is
    about."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _as_checkpoint_error(checkpoint: str | Path) -> Iterator[None]:
    """What `transformers` raises for files that are missing or damaged, in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"{checkpoint} cannot be loaded: {reason}") from error


def _cached(name: str) -> bool:
    require("transformers", "finetune", "fine-tuning")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False
