"""An encoder-decoder for translation: an ELECTRA reads the source, a decoder with cross-attention writes the target."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast.errors import CheckpointError
from electra_fast.files import write_text
from electra_fast.nn.decoder import Memory
from electra_fast.rng import fresh

from .decoder import TranslationDecoder
from .encoder import ElectraModel
from .translation_config import TranslationConfig
from .weights import SAFETENSORS, read_json, read_weights, write_weights

_TABLE = "decoder.electra.embeddings.word_embeddings.weight"


class TranslationOutput(NamedTuple):
    """Mean loss of a target token, with label smoothing in training and without it in evaluation."""

    loss: Tensor


class ElectraForTranslation(nn.Module):
    """`transformers`' ``EncoderDecoderModel`` of an ``ElectraModel`` and an ``ElectraForCausalLM``, on packed tokens.

    Its directory is theirs: ``EncoderDecoderModel.from_pretrained`` loads it, and computes the same.
    Encoder and decoder start from fresh weights; `from_encoder` takes a pretrained one.
    """

    def __init__(self, config: TranslationConfig, encoder: ElectraModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = ElectraModel(config.encoder) if encoder is None else encoder
        self.decoder = TranslationDecoder(config.decoder)
        fast.assign_sites(self, 0)

    def forward(
        self,
        input_ids: Tensor,
        cu_seqlens: Tensor,
        labels: Tensor,
        label_cu_seqlens: Tensor,
        max_seqlen: int | None = None,
        label_max_seqlen: int | None = None,
        rng: Tensor | None = None,
    ) -> TranslationOutput:
        """Loss of predicting each target token from the source and the target tokens before it.

        Args:
            input_ids: int64 ``[S]``, the sources packed end to end, with ``cu_seqlens`` int32 ``[B+1]``.
            labels: int64 ``[T]``, the targets, each with its end token, with ``label_cu_seqlens`` int32 ``[B+1]``.
            max_seqlen, label_max_seqlen: upper bounds of the lengths; default: the position tables' sizes.
            rng: int64 ``[2]`` = (seed, step) of the dropout; drawn from torch's generator when absent in training.

        Raises: ValueError for a wrong shape, or sequences longer than a position table.
        """
        if cu_seqlens.shape != label_cu_seqlens.shape:
            raise ValueError(
                "ElectraForTranslation: label_cu_seqlens must have as many entries as cu_seqlens, "
                f"{len(cu_seqlens)}, got {len(label_cu_seqlens)}"
            )
        longest = self.config.decoder.max_position_embeddings
        if label_max_seqlen is None:
            label_max_seqlen = min(labels.shape[0], longest)
        if label_max_seqlen > longest:
            raise ValueError(
                f"ElectraForTranslation: targets may have at most {longest} tokens (the decoder's "
                f"max_position_embeddings), got {label_max_seqlen}: truncate them"
            )
        if self.training and rng is None:
            rng = fresh(input_ids.device)
        memory = self.encode(input_ids, cu_seqlens, max_seqlen, rng)
        given = shift_right(labels, label_cu_seqlens, self.config.decoder.cls_token_id)
        features = self.decoder(given, label_cu_seqlens, label_max_seqlen, memory, rng)
        return TranslationOutput(
            self.decoder.loss(features, labels, self.config.label_smoothing if self.training else 0.0)
        )

    def encode(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int | None = None, rng: Tensor | None = None
    ) -> Memory:
        """Packed sources as the decoder looks at them."""
        if max_seqlen is None:
            max_seqlen = min(input_ids.shape[0], self.config.encoder.max_position_embeddings)
        hidden = self.encoder(input_ids, cu_seqlens=cu_seqlens, max_seqlen=max_seqlen, rng=rng)
        return Memory(hidden, cu_seqlens, max_seqlen)

    @classmethod
    def from_encoder(cls, config: TranslationConfig, directory: str | os.PathLike[str]) -> ElectraForTranslation:
        """With the encoder that a pretraining run, or `transformers`, saved; the decoder starts from fresh weights.

        Raises:
            CheckpointError: a file is missing or damaged, or the weights are not those of ``config.encoder``.
        """
        return cls(config, ElectraModel.from_pretrained(directory, config=config.encoder, dtype=torch.float32).train())

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None
    ) -> ElectraForTranslation:
        """What `save_pretrained` wrote, or `transformers` after loading it; in evaluation mode, on the CPU.

        Raises:
            CheckpointError: a file is missing or damaged, or a weight is missing, unknown or of another shape.
            ConfigError: config.json is not a translation model's, or asks for something that is not implemented.
        """
        directory = Path(directory)
        config = TranslationConfig.from_huggingface_dict(read_json(directory / "config.json"))
        with torch.device("meta"):
            model = cls(config)
        weights = read_weights(directory)
        table = weights.pop("decoder.generator_lm_head.weight", None)  # transformers may write it, too
        if table is not None and not torch.equal(table, weights.get(_TABLE, table)):
            raise CheckpointError(
                f"{directory}: decoder.generator_lm_head.weight is not the target's word embeddings "
                "(saved with tie_word_embeddings=False)"
            )
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{directory} does not hold what its config promises: {_one_line(error)}") from None
        return model.eval() if dtype is None else model.eval().to(dtype)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write model.safetensors, config.json and generation_config.json, each atomically.

        Raises:
            DiskFullError: no space left.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict()
        write_weights(directory / SAFETENSORS, weights)
        config = self.config.to_huggingface_dict(next(iter(weights.values())).dtype)
        for name, values in (("config.json", config), ("generation_config.json", self.config.generation())):
            write_text(directory / name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def shift_right(labels: Tensor, cu_seqlens: Tensor, start: int) -> Tensor:
    """What the decoder reads when it has to write ``labels [T]``: each sequence one later, after the start token."""
    shifted = labels.roll(1)
    beginnings = cu_seqlens[:-1].long()
    return shifted.index_fill(0, beginnings[beginnings < cu_seqlens[1:]], start)


def _one_line(error: RuntimeError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines()[1:3])
