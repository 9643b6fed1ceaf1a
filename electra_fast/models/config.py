"""The configuration of an ELECTRA: architecture under Hugging Face's names, pretraining hyperparameters beside it.

A preset carries *everything* of a size. (In google-research/electra ``model_size: base`` alone changes the
discriminator and leaves the small model's sequence length, learning rate, batch size and generator: the values for base
and large are only comments there.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from electra_fast.errors import ConfigError

from .fields import check_at_least, check_keys, check_probability, check_types, from_mapping, plain_dict
from .pretraining_config import PretrainingConfig

_BERT_TOKENS = {"cls_token_id": 101, "sep_token_id": 102, "mask_token_id": 103}  # of BERT's uncased vocabulary
_BASE = {
    "embedding_size": 768,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "generator_hidden_fraction": 1 / 3,
    "sequence_length": 512,
    "learning_rate": 2e-4,
    "batch_size": 256,
    "total_steps": 766_000,
}
_LARGE = {
    "embedding_size": 1024,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "generator_hidden_fraction": 0.25,
    "sequence_length": 512,
    "mask_probability": 0.25,
    "learning_rate": 2e-4,
    "batch_size": 2048,
    "total_steps": 400_000,
}
_HEAD_SIZE = 64
_UNSUPPORTED = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}


@dataclass(frozen=True)
class ElectraConfig:
    """An ELECTRA network, with `transformers.ElectraConfig`'s names and defaults, and how it is pretrained.

    Attributes:
        embedding_size: width of the token embeddings; projected to ``hidden_size`` where they differ.
        hidden_act: only "gelu", the exact erf form, is implemented.
        classifier_dropout: of the classification heads; None: ``hidden_dropout_prob``.
        summary_type, summary_use_proj, summary_activation, summary_last_dropout: of `ElectraForMultipleChoice`, which
            implements the type "first" and the activations "gelu" and None.
        num_labels, id2label, problem_type: of the task heads.
        pad_token_id, cls_token_id, sep_token_id, mask_token_id: None where the vocabulary has none or it is not known.
            The embedding row of the padding token gets no gradient from look-ups.
        pretraining: `PretrainingConfig`.

    Raises:
        ConfigError: a value is ill-typed, out of range or at odds with another.
    """

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str | None = "gelu"
    summary_last_dropout: float = 0.1
    classifier_dropout: float | None = None
    num_labels: int = 2
    id2label: dict[int, str] | None = field(default=None, hash=False)
    problem_type: str | None = None
    pad_token_id: int | None = 0
    cls_token_id: int | None = None
    sep_token_id: int | None = None
    mask_token_id: int | None = None
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(
            self, 1, "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "intermediate_size", "max_position_embeddings", "type_vocab_size", "num_labels",
        )  # fmt: skip
        check_at_least(self, 0, "initializer_range", "layer_norm_eps")
        check_probability(
            self, "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "summary_last_dropout"
        )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"ElectraConfig: hidden_size must be a multiple of num_attention_heads, "
                f"got {self.hidden_size} and {self.num_attention_heads}"
            )
        _check_choice("hidden_act", self.hidden_act, ("gelu",))
        _check_choice(
            "problem_type",
            self.problem_type,
            ("regression", "single_label_classification", "multi_label_classification", None),
        )
        for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < self.vocab_size:
                raise ConfigError(f"ElectraConfig: {name} must be in [0, {self.vocab_size}) (vocab_size), got {value}")
        if self.id2label is not None and sorted(self.id2label) != list(range(self.num_labels)):
            raise ConfigError(
                f"ElectraConfig: id2label must name the labels 0 to {self.num_labels - 1} (num_labels), "
                f"got {sorted(self.id2label)}"
            )

    @classmethod
    def small(cls, **overrides: Any) -> ElectraConfig:
        """ELECTRA-small, 14M parameters: 12 layers of 256, embeddings of 128, a generator of width 64, 128 tokens.

        ``overrides`` may name any field of `ElectraConfig` or `PretrainingConfig`. Another ``vocab_size`` drops the
        ids of BERT's special tokens, which then have to be given before pretraining.
        """
        return cls._preset({}, overrides)

    @classmethod
    def base(cls, **overrides: Any) -> ElectraConfig:
        """ELECTRA-base, 110M parameters: 12 layers of 768, a generator of width 256, 512 tokens. See `small`."""
        return cls._preset(_BASE, overrides)

    @classmethod
    def large(cls, **overrides: Any) -> ElectraConfig:
        """ELECTRA-large, 335M parameters: 24 layers of 1024, a generator of width 256, 512 tokens. See `small`.

        ``total_steps`` is that of ELECTRA-400K; the released model took 1.75 million.
        """
        return cls._preset(_LARGE, overrides)

    @classmethod
    def _preset(cls, values: dict[str, Any], overrides: dict[str, Any]) -> ElectraConfig:
        tokens = {} if "vocab_size" in overrides else _BERT_TOKENS
        return cls().replace(**(tokens | values | overrides))

    def replace(self, **changes: Any) -> ElectraConfig:
        """A copy with some fields changed, of this class or of ``pretraining``, by name."""
        training_names = {f.name for f in dataclasses.fields(PretrainingConfig)}
        own_names = {f.name for f in dataclasses.fields(ElectraConfig)}
        check_keys("ElectraConfig", changes, own_names | training_names)
        own = {name: value for name, value in changes.items() if name in own_names}
        training = {name: value for name, value in changes.items() if name in training_names}
        if training:
            own["pretraining"] = dataclasses.replace(own.get("pretraining", self.pretraining), **training)
        return dataclasses.replace(self, **own)

    def generator(self) -> ElectraConfig:
        """The generator's configuration: same vocabulary and embeddings, a fraction of the width and depth.

        ``hidden = round(hidden_size · fraction)``, ``layers = round(num_hidden_layers · fraction)``, feed-forward
        4 times the width, ``max(1, hidden // 64)`` heads, unless these two are given. Source: google-research/electra
        ``get_generator_config``.
        """
        recipe = self.pretraining
        hidden = round(self.hidden_size * recipe.generator_hidden_fraction)
        layers = round(self.num_hidden_layers * recipe.generator_layers_fraction)
        heads = recipe.generator_attention_heads or max(1, hidden // _HEAD_SIZE)
        if hidden < 1 or layers < 1 or hidden % heads:
            raise ConfigError(
                f"the generator would have hidden_size {hidden}, {layers} layers and {heads} attention heads: choose "
                "generator_hidden_fraction, generator_layers_fraction and generator_attention_heads so that the heads "
                "divide its hidden size"
            )
        return dataclasses.replace(
            self,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=recipe.generator_intermediate_size or 4 * hidden,
        )

    def check_pretraining(self) -> None:
        """ConfigError unless this can be pretrained: special tokens known, sequences within the position table."""
        for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            if getattr(self, name) is None:
                raise ConfigError(f"pretraining needs {name}: set it in the ElectraConfig to the tokenizer's id")
        if self.pretraining.sequence_length > self.max_position_embeddings:
            raise ConfigError(
                f"sequence_length must be at most max_position_embeddings ({self.max_position_embeddings}), "
                f"got {self.pretraining.sequence_length}"
            )
        self.generator()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ElectraConfig:
        """The inverse of `to_dict`. ConfigError for an unknown or ill-typed key, naming the nearest known one."""
        values = dict(values) if isinstance(values, Mapping) else values
        if isinstance(values, dict):
            if isinstance(values.get("id2label"), Mapping):
                values["id2label"] = {int(key): label for key, label in values["id2label"].items()}
            if not isinstance(values.get("pretraining", PretrainingConfig()), PretrainingConfig):
                values["pretraining"] = from_mapping(PretrainingConfig, values["pretraining"])
        return from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, ``pretraining`` as a dict of its own."""
        return plain_dict(self)

    @classmethod
    def from_huggingface_dict(cls, values: Mapping[str, Any]) -> ElectraConfig:
        """From what a `transformers` config.json holds. Keys that say nothing about the network are passed over.

        Raises:
            ConfigError: another model's config, or a decoder, cross-attention or relative positions.
        """
        kind = values.get("model_type", "electra")
        if kind != "electra":
            raise ConfigError(f"the config is of a model of type {kind!r}: an ELECTRA's ('electra') is needed")
        for name, supported in _UNSUPPORTED.items():
            if (given := values.get(name, supported)) not in (supported, None):
                raise ConfigError(f"the config has {name} = {given!r}: only {supported!r} is implemented")
        known = {f.name for f in dataclasses.fields(cls)} - {"pretraining"}
        own = {name: value for name, value in values.items() if name in known}
        own["summary_activation"] = own.get("summary_activation", "gelu") or None
        if own.get("id2label") is not None:
            own["num_labels"] = len(own["id2label"])
        return cls.from_dict(own)

    def to_huggingface_dict(self, architecture: str | None = None, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """What `transformers` reads from config.json: of a saved class ``architecture``, with weights of ``dtype``."""
        values: dict[str, Any] = {"model_type": "electra"}
        if architecture is not None:
            values["architectures"] = [architecture]
        if dtype is not None:
            values["dtype"] = str(dtype).removeprefix("torch.")
        for f in dataclasses.fields(self):
            if f.name not in ("pretraining", "num_labels", "id2label", "problem_type"):
                values[f.name] = getattr(self, f.name)
        values["summary_activation"] = self.summary_activation or ""  # transformers 5 takes no null there
        for name in _BERT_TOKENS:  # not among transformers' own fields, so that null would say nothing
            if values[name] is None:
                del values[name]
        if self.id2label is not None or self.num_labels != 2:
            labels = self.id2label or {i: f"LABEL_{i}" for i in range(self.num_labels)}
            values["id2label"] = {str(i): labels[i] for i in range(self.num_labels)}
            values["label2id"] = {label: i for i, label in labels.items()}
        if self.problem_type is not None:
            values["problem_type"] = self.problem_type
        return values


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        allowed = " or ".join(repr(choice) for choice in choices)
        raise ConfigError(f"ElectraConfig: {name} must be {allowed}, got {value!r}")
