"""The decoder of a translation model: target embeddings, layers, and the projection to the vocabulary tied to them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast import ops
from electra_fast.nn.decoder import Decoder, Memory, MemoryKeys

from .config import ElectraConfig
from .encoder import packed_positions
from .heads import GeneratorPredictions


class DecoderModel(nn.Module):
    """Embeddings and layers, under the names of `transformers`' ``ElectraModel``."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.embeddings = fast.Embeddings(config)
        if config.embedding_size != config.hidden_size:
            self.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)
        else:
            self.embeddings_project = None
        self.encoder = Decoder(config)

    def embed(self, input_ids: Tensor, position_ids: Tensor, rng: Tensor | None) -> Tensor:
        """``[T]`` ids to ``[T, N]``."""
        embedded = self.embeddings(input_ids, position_ids, rng=rng)
        return embedded if self.embeddings_project is None else self.embeddings_project(embedded)


class OutputBias(nn.Module):
    """What the projection to the vocabulary has of its own: its weight is the table of the target's words."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))


class TranslationDecoder(nn.Module):
    """State dict of `transformers`' ``ElectraForCausalLM`` with cross-attention, the tied weight left out.

    Linear layers start as Glorot's, which for a decoder without pretraining is what Vaswani et al. 2017 train from; the
    words with deviation ``1/√E``, so that logits start at a deviation of about 1; positions as the sinusoids of their
    section 3.5, at the words' size, so that places that training never reaches are not noise.
    """

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = DecoderModel(config)
        self.generator_predictions = GeneratorPredictions(config)
        self.generator_lm_head = OutputBias(config.vocab_size)
        self._initialize()

    @property
    def table(self) -> Tensor:
        """``[V, E]``: embeddings of the target's words, and weight of the output layer."""
        return self.electra.embeddings.word_embeddings.weight

    def forward(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int | None, memory: Memory, rng: Tensor | None = None
    ) -> Tensor:
        """Features ``[T, E]`` of packed tokens ``[T]``, from which `logits` or `loss` follow."""
        x = self.electra.embed(input_ids, packed_positions(cu_seqlens, input_ids.shape[0]), rng)
        return self.generator_predictions(self.electra.encoder(x, cu_seqlens, max_seqlen, memory, rng))

    def logits(self, features: Tensor) -> Tensor:
        """``[T, E]`` to ``[T, V]``."""
        return F.linear(features, self.table, self.generator_lm_head.bias)

    def loss(self, features: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean over the tokens of ``lse - (1-ε) l_target - ε mean(l)``, float32; the logits l are never stored whole.

        That is cross-entropy against a target whose mass ε is spread evenly over the V words (Szegedy et al. 2016,
        section 7). The op gives ``lse - l_target``; what is missing is a product with one row more.

        Args:
            targets: int64 ``[T]``. smoothing: ε.
        """
        bias = self.generator_lm_head.bias
        losses = ops.generator_head(features, self.table, bias, targets).loss
        if smoothing:
            rows = F.embedding(targets, self.table) - self.table.mean(0)
            above_mean = (features.float() * rows).sum(-1) + bias.index_select(0, targets) - bias.mean()
            losses = losses + smoothing * above_mean
        return losses.mean()

    def keys(self, memory: Memory) -> list[MemoryKeys]:
        """Every layer's view of a memory."""
        return [layer.crossattention.self.keys(memory) for layer in self.electra.encoder.layer]

    def step(
        self, tokens: Tensor, position: int, past: list[Tensor], keys: list[MemoryKeys], cu_rows: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[R, V]`` of what follows ``tokens [R]``, all at ``position``; see `DecoderLayer.step`."""
        x = self.electra.embed(tokens, torch.full_like(tokens, position), None)
        longer = []
        for layer, before, own_keys in zip(self.electra.encoder.layer, past, keys, strict=True):
            x, now = layer.step(x, before, own_keys, cu_rows)
            longer.append(now)
        return self.logits(self.generator_predictions(x)), longer

    def _initialize(self) -> None:
        deviation = self.config.embedding_size**-0.5
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=deviation)
        with torch.no_grad():
            places = self.electra.embeddings.position_embeddings.weight
            places.copy_(_sinusoids(*places.shape) * math.sqrt(2) * deviation)


def _sinusoids(places: int, width: int) -> Tensor:
    """``sin(p / 10000^(2i/E))`` in even columns, the cosine in odd ones, ``[places, width]``."""
    column = torch.arange(width)
    angle = torch.arange(places)[:, None] * 10000.0 ** (-(column // 2 * 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())
