"""The configuration of a translation model: an ELECTRA as encoder, a decoder like it, and how it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from electra_fast.errors import ConfigError

from .config import ElectraConfig
from .fields import check_probability, check_types

MODEL_TYPE = "encoder-decoder"
ARCHITECTURE = "EncoderDecoderModel"
_DECODER = {"is_decoder": True, "add_cross_attention": True}
_OWN = "label_smoothing"


@dataclass  # not frozen: transformers' Trainer notes use_cache in the config of what it trains
class TranslationConfig:
    """Encoder and decoder of a translation model.

    Attributes:
        encoder, decoder: their sizes; ``decoder.vocab_size`` is that of the target language, its ``cls_token_id`` is
            what every translation begins from and its ``sep_token_id`` what ends it, its ``max_position_embeddings``
            bounds a translation's length.
        label_smoothing: the share of a target's probability that is spread evenly over the vocabulary.

    Raises:
        ConfigError: a value out of range, other widths, or a decoder without these tokens.
    """

    encoder: ElectraConfig
    decoder: ElectraConfig
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        check_probability(self, _OWN)
        if self.encoder.hidden_size != self.decoder.hidden_size:
            raise ConfigError(
                "TranslationConfig: encoder and decoder must have the same hidden_size, "
                f"got {self.encoder.hidden_size} and {self.decoder.hidden_size}"
            )
        for name in ("cls_token_id", "sep_token_id", "pad_token_id"):
            if getattr(self.decoder, name) is None:
                raise ConfigError(f"TranslationConfig: the decoder needs {name}: the id in the target's vocabulary")

    @classmethod
    def for_encoder(
        cls,
        encoder: ElectraConfig,
        vocab_size: int,
        special_tokens: Mapping[str, int],
        *,
        layers: int = 3,
        max_length: int = 256,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
    ) -> TranslationConfig:
        """With a decoder of the encoder's widths.

        Args:
            vocab_size: of the target language's tokenizer; special_tokens: its ids by role (pad, cls, sep, mask).
            layers: of the decoder. max_length: most tokens of a translation, the end included.
            dropout: in both halves, whatever the encoder was pretrained with.
        """
        dropped = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        roles = ("pad", "cls", "sep", "mask")
        decoder = encoder.replace(
            vocab_size=vocab_size,
            num_hidden_layers=layers,
            max_position_embeddings=max_length,
            type_vocab_size=1,
            **{f"{role}_token_id": special_tokens.get(role) for role in roles},
            **dropped,
        )
        return cls(encoder.replace(**dropped), decoder, label_smoothing)

    @classmethod
    def from_huggingface_dict(cls, values: Mapping[str, Any]) -> TranslationConfig:
        """From what `to_huggingface_dict` wrote, or `transformers` from it.

        Raises:
            ConfigError: another model's config, or one that asks for something that is not implemented.
        """
        if values.get("model_type") != MODEL_TYPE:
            raise ConfigError(
                f"the config is of a model of type {values.get('model_type')!r}: a translation model's "
                f"({MODEL_TYPE!r}) is needed"
            )
        halves = [values.get(half) for half in ("encoder", "decoder")]
        if not all(isinstance(half, Mapping) for half in halves):
            raise ConfigError("the config lacks encoder or decoder, each an ELECTRA's config")
        encoder, decoder = halves
        if any(decoder.get(name) is not value for name, value in _DECODER.items()):
            raise ConfigError("the config's decoder must have is_decoder and add_cross_attention = true")
        decoder = {name: value for name, value in decoder.items() if name not in _DECODER}
        smoothing = values.get(_OWN, 0.0)
        return cls(*map(ElectraConfig.from_huggingface_dict, (encoder, decoder)), label_smoothing=smoothing)

    def to_huggingface_dict(self, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """What ``transformers.EncoderDecoderModel`` reads from config.json, for weights of ``dtype``."""
        decoder = self.decoder.to_huggingface_dict("ElectraForCausalLM", dtype) | _DECODER
        return {
            "model_type": MODEL_TYPE,
            "architectures": [ARCHITECTURE],
            "dtype": decoder.get("dtype"),
            "is_encoder_decoder": True,
            "encoder": self.encoder.to_huggingface_dict("ElectraModel", dtype),
            "decoder": decoder,
            _OWN: self.label_smoothing,
            **self.generation(),
        }

    def generation(self) -> dict[str, Any]:
        """The token ids that `transformers`' ``generate`` needs."""
        return {
            "decoder_start_token_id": self.decoder.cls_token_id,
            "eos_token_id": self.decoder.sep_token_id,
            "pad_token_id": self.decoder.pad_token_id,
        }

    def replace(self, **changes: Any) -> TranslationConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
