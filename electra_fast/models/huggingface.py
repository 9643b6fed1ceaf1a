"""Hugging Face directories, both ways: what `transformers` saved is loaded, what is saved `transformers` loads.

Names are the same on both sides, so that weights go through unchanged, to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.files import atomic_writer, write_text

from . import heads
from .config import ElectraConfig
from .encoder import ElectraModel
from .initialization import initialize
from .weights import SAFETENSORS, read_json, read_weights, write_weights

CLASSES: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        ElectraModel,
        heads.ElectraForPreTraining,
        heads.ElectraForMaskedLM,
        heads.ElectraForSequenceClassification,
        heads.ElectraForTokenClassification,
        heads.ElectraForQuestionAnswering,
        heads.ElectraForMultipleChoice,
    )
}
_PREFIX = "electra."
_HEADS = (
    "discriminator_predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    "classifier.",
    "qa_outputs.",
    "sequence_summary.",
)
_TIED = "generator_lm_head.weight"
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # of checkpoints before transformers 4.31
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def load_config(directory: str | os.PathLike[str]) -> ElectraConfig:
    """The configuration in ``directory/config.json``.

    Raises:
        CheckpointError: it is missing or damaged.
        ConfigError: it is not an ELECTRA's, or asks for something that is not implemented.
    """
    return ElectraConfig.from_huggingface_dict(read_json(Path(directory) / "config.json"))


def load_pretrained(
    directory: str | os.PathLike[str],
    cls: type[nn.Module] | None = None,
    *,
    config: ElectraConfig | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Load an ELECTRA that `transformers`, or `save_pretrained`, saved; in evaluation mode, on the CPU.

    Args:
        directory: config.json and model.safetensors or pytorch_model.bin, whole or in shards.
        cls: one of the seven classes of `electra_fast.models`; default: the one that config.json names. An encoder
            loads into any class: the heads it lacks are newly initialised, with a warning that names them, and heads
            that the class has no use for are left out.
        config: instead of config.json, to change what does not touch the weights that are there (``num_labels``,
            dropout): ``load_config(directory).replace(num_labels=3)``.
        dtype: of the parameters; default: as saved.

    Raises:
        CheckpointError: a file is missing or damaged, or a weight is missing, unknown or of another shape.
        ConfigError: config.json is not an ELECTRA's, or asks for something that is not implemented.
    """
    directory = Path(directory)
    values = read_json(directory / "config.json")
    config = ElectraConfig.from_huggingface_dict(values) if config is None else config
    cls = _class_of(values, directory) if cls is None else cls
    if CLASSES.get(cls.__name__) is not cls:
        raise ConfigError(f"load_pretrained: cls must be one of {', '.join(CLASSES)}, got {cls.__name__}")
    with torch.device("meta"):
        model = cls(config)
    saved = read_weights(directory)
    weights = _translate(saved, prefixed=cls is not ElectraModel)
    _check(model, weights, directory)
    if hasattr(model, "generator_lm_head"):
        _check_tied(saved.get(_TIED), weights["electra.embeddings.word_embeddings.weight"], directory)
    model.load_state_dict(weights, strict=False, assign=True)
    fresh = _initialize_missing(model, weights)
    if fresh:
        warnings.warn(
            f"{directory} has no weights for {', '.join(fresh)} of {cls.__name__}: newly initialised, to be trained",
            stacklevel=2,
        )
    if cls is not ElectraModel:
        model.tie_weights()
    return model.eval() if dtype is None else model.eval().to(dtype)


def save_pretrained(
    model: nn.Module, directory: str | os.PathLike[str], *, tokenizer_dir: str | os.PathLike[str] | None = None
) -> None:
    """Write model.safetensors and config.json, each atomically, for `transformers` to load without a warning.

    Args:
        model: of one of the seven classes of `electra_fast.models`.
        directory: made if absent.
        tokenizer_dir: whose tokenizer files are copied along; ``model_max_length`` becomes the length of this model's
            position table.

    Raises:
        ConfigError: another class. DiskFullError: no space left.
    """
    if CLASSES.get(type(model).__name__) is not type(model):
        raise ConfigError(f"save_pretrained: model must be one of {', '.join(CLASSES)}, got {type(model).__name__}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != _TIED}
    write_weights(directory / SAFETENSORS, weights)
    dtype = next(iter(weights.values())).dtype
    config = model.config.to_huggingface_dict(type(model).__name__, dtype)
    write_text(directory / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if tokenizer_dir is not None:
        for name in _TOKENIZER_FILES:
            source = Path(tokenizer_dir) / name
            if source.exists():
                with open(source, "rb") as stream, atomic_writer(directory / name) as target:
                    shutil.copyfileobj(stream, target)
        _set_longest(directory / "tokenizer_config.json", model.config.max_position_embeddings)


def _set_longest(tokenizer_config: Path, tokens: int) -> None:
    """Have the tokenizer truncate where this model's position table ends, not where its corpus' examples did."""
    if tokenizer_config.exists():
        values = json.loads(tokenizer_config.read_text(encoding="utf-8")) | {"model_max_length": tokens}
        write_text(tokenizer_config, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _class_of(values: dict, directory: Path) -> type[nn.Module]:
    named = (values.get("architectures") or ["ElectraModel"])[0]
    if named not in CLASSES:
        raise ConfigError(f"{directory} holds a {named}: give cls, one of {', '.join(CLASSES)}")
    return CLASSES[named]


def _translate(weights: dict[str, Tensor], prefixed: bool) -> dict[str, Tensor]:
    """Names as the model has them: old ones renamed, buffers and the tied copy dropped, ``electra.`` put on or off."""
    has_prefix = any(name.startswith(_PREFIX) for name in weights)
    translated = {}
    for name, tensor in weights.items():
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        if name.endswith(_BUFFERS) or name == _TIED:
            continue
        if has_prefix and not prefixed:
            if not name.startswith(_PREFIX):
                continue
            name = name.removeprefix(_PREFIX)
        elif prefixed and not has_prefix and not name.startswith(_HEADS):
            name = _PREFIX + name
        translated[name] = tensor
    return translated


def _check(model: nn.Module, weights: dict[str, Tensor], directory: Path) -> None:
    """CheckpointError for an encoder weight that is missing, one that nothing takes, or another shape."""
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            if not name.startswith(_HEADS):
                raise CheckpointError(f"{directory} lacks {name} ({list(tensor.shape)}), which its config promises")
        elif weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{directory}: {name} must have shape {list(tensor.shape)} by the config, "
                f"got {list(weights[name].shape)}"
            )
    for name in weights:
        if name not in expected and not name.startswith(_HEADS):
            raise CheckpointError(f"{directory} holds {name}, which an ELECTRA of its config does not have")


def _check_tied(projection: Tensor | None, table: Tensor, directory: Path) -> None:
    if projection is not None and not torch.equal(projection, table):
        raise CheckpointError(
            f"{directory}: {_TIED} differs from the word embeddings (saved with tie_word_embeddings=False): "
            "an ELECTRA's projection to the vocabulary is its word embeddings"
        )


def _initialize_missing(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Make and fill the heads that the weights lack; returns their parameters' names."""
    fresh = []
    for head_name, head in model.named_children():
        names = [f"{head_name}.{name}" for name, _ in head.named_parameters()]
        missing = [name for name in names if name not in weights and name != _TIED]
        if not missing:
            continue
        if any(name in weights for name in names):
            raise CheckpointError(f"the weights hold a part of {head_name} only: {missing[0]} is missing")
        head.to_empty(device="cpu")
        initialize(head, model.config.initializer_range)
        fresh += missing
    return fresh
