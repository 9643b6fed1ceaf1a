"""ELECTRA with a head on top: `transformers`' six classes, their state-dict names and their logits.

Logits agree with `transformers` at every token that the attention mask keeps. At the others they are zero here, and no
loss counts them; sentence-level heads read the first token that the mask keeps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast.errors import ConfigError
from electra_fast.nn.feed_forward import project_and_gelu
from electra_fast.nn.linear import project

from .config import ElectraConfig
from .encoder import ElectraModel
from .initialization import initialize
from .pretrained import Pretrained

IGNORED = -100  # a label that no loss counts


class ElectraOutput(NamedTuple):
    """Loss (None without labels) and logits."""

    loss: Tensor | None
    logits: Tensor


class QuestionAnsweringOutput(NamedTuple):
    """Loss (None without positions), and logits ``[B, S]`` of the answer's first and last token."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor


class DiscriminatorPredictions(nn.Module):
    """``dense_prediction(gelu(dense(x)))``: one logit a token, positive for a replaced one."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense_prediction = nn.Linear(config.hidden_size, 1)

    def transform(self, hidden: Tensor) -> Tensor:
        """All but the projection to one logit."""
        return project_and_gelu(hidden, self.dense)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., N]`` to logits ``[...]``."""
        return self.dense_prediction(self.transform(hidden)).squeeze(-1)


class GeneratorPredictions(nn.Module):
    """``LN(gelu(dense(x)))``, to the width of the embeddings."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.LayerNorm = fast.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., N]`` to ``[..., embedding_size]``."""
        return self.LayerNorm(project_and_gelu(hidden, self.dense))


class ClassificationHead(nn.Module):
    """``out_proj(dropout(gelu(dense(dropout(x)))))``, of the sentence's first token."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.dropout = nn.Dropout(classifier_dropout(config))

    def forward(self, first: Tensor) -> Tensor:
        """``[B, N]`` to ``[B, num_labels]``."""
        return self.out_proj(self.dropout(project_and_gelu(self.dropout(first), self.dense)))


class SequenceSummary(nn.Module):
    """``dropout(activation(summary(x)))`` of the sentence's first token, as ``ElectraForMultipleChoice`` has it."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        if config.summary_type != "first" or config.summary_activation not in ("gelu", None):
            raise ConfigError(
                "ElectraForMultipleChoice: summary_type must be 'first' and summary_activation 'gelu' or None, "
                f"got {config.summary_type!r} and {config.summary_activation!r}"
            )
        width = config.hidden_size
        self.summary = nn.Linear(width, width) if config.summary_use_proj else nn.Identity()
        self.activation = fast.GELU() if config.summary_activation == "gelu" else None
        self.dropout = nn.Dropout(config.summary_last_dropout)

    def forward(self, first: Tensor) -> Tensor:
        """``[B, N]`` to ``[B, N]``."""
        if self.activation is None:
            return self.dropout(self.summary(first))
        return self.dropout(self.activation(*project(self.summary, first)))


class _WithEncoder(Pretrained, nn.Module):
    """An encoder under the name ``electra``, and a head that the subclass adds and then initialises."""

    def __init__(self, config: ElectraConfig, embeddings: fast.Embeddings | None = None) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraModel(config, embeddings)

    def tie_weights(self) -> None:
        """Share the parameters that are one by definition; none but in `ElectraForMaskedLM`."""


class ElectraForPreTraining(_WithEncoder):
    """The discriminator: which tokens were replaced."""

    def __init__(self, config: ElectraConfig, embeddings: fast.Embeddings | None = None) -> None:
        super().__init__(config, embeddings)
        self.discriminator_predictions = DiscriminatorPredictions(config)
        initialize(self.discriminator_predictions, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> ElectraOutput:
        """Logits ``[B, S]``, positive for "replaced"; with ``labels [B, S]`` (1: replaced) the mean loss."""
        hidden = self.electra(input_ids, attention_mask, token_type_ids, position_ids, rng=rng)
        logits = _clear_padding(self.discriminator_predictions(hidden), attention_mask)
        if labels is None:
            return ElectraOutput(None, logits)
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
        if attention_mask is None:
            return ElectraOutput(losses.mean(), logits)
        real = attention_mask != 0
        return ElectraOutput(_clear_padding(losses, attention_mask).sum() / real.sum().clamp(min=1), logits)


class ElectraForMaskedLM(_WithEncoder):
    """The generator: what stood at a masked position. ``generator_lm_head.weight`` is the word embeddings' table."""

    def __init__(self, config: ElectraConfig, embeddings: fast.Embeddings | None = None) -> None:
        super().__init__(config, embeddings)
        self.generator_predictions = GeneratorPredictions(config)
        self.generator_lm_head = nn.Linear(config.embedding_size, config.vocab_size, device="meta")
        self.generator_lm_head.bias = nn.Parameter(self.electra.embeddings.LayerNorm.bias.new_zeros(config.vocab_size))
        self.tie_weights()
        initialize(self.generator_predictions, config.initializer_range)

    def tie_weights(self) -> None:
        """Make the vocabulary projection the word embeddings' table again, as after loading."""
        self.generator_lm_head.weight = self.electra.embeddings.word_embeddings.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> ElectraOutput:
        """Logits ``[B, S, V]``; with ``labels [B, S]`` (-100: not counted) their mean cross-entropy."""
        hidden = self.electra(input_ids, attention_mask, token_type_ids, position_ids, rng=rng)
        logits = _clear_padding(self.generator_lm_head(self.generator_predictions(hidden)), attention_mask)
        return ElectraOutput(_token_loss(logits, labels, attention_mask), logits)


class ElectraForSequenceClassification(_WithEncoder):
    """One label, several labels or a number for a sentence or a pair of them."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.classifier = ClassificationHead(config)
        initialize(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> ElectraOutput:
        """Logits ``[B, num_labels]``.

        The loss follows ``config.problem_type``; without one it is mean squared error for a single label, cross-entropy
        for integer ``labels [B]``, and binary cross-entropy for float ``labels [B, num_labels]``.
        """
        hidden = self.electra(input_ids, attention_mask, token_type_ids, position_ids, rng=rng)
        logits = self.classifier(_first_token(hidden, attention_mask))
        return ElectraOutput(None if labels is None else self._loss(logits.float(), labels), logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind is None:
            if self.config.num_labels == 1:
                kind = "regression"
            else:
                kind = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        if kind == "regression":
            return F.mse_loss(logits.view(labels.shape), labels.float())
        if kind == "single_label_classification":
            return F.cross_entropy(logits, labels.view(-1))
        return F.binary_cross_entropy_with_logits(logits, labels.float())


class ElectraForTokenClassification(_WithEncoder):
    """A label for every token."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> ElectraOutput:
        """Logits ``[B, S, num_labels]``; with ``labels [B, S]`` (-100: not counted) their mean cross-entropy."""
        hidden = self.electra(input_ids, attention_mask, token_type_ids, position_ids, rng=rng)
        logits = _clear_padding(self.classifier(self.dropout(hidden)), attention_mask)
        return ElectraOutput(_token_loss(logits, labels, attention_mask), logits)


class ElectraForQuestionAnswering(_WithEncoder):
    """The answer to a question as a span of the text."""

    def __init__(self, config: ElectraConfig) -> None:
        if config.num_labels != 2:
            raise ConfigError(
                f"ElectraForQuestionAnswering: num_labels must be 2, an answer's start and end, got {config.num_labels}"
            )
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        initialize(self.qa_outputs, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> QuestionAnsweringOutput:
        """Logits ``[B, S]`` each, the dtype's lowest value at padding.

        With ``start_positions`` and ``end_positions [B]`` the mean of both cross-entropies over real tokens; positions
        outside the sequence are not counted.
        """
        hidden = self.electra(input_ids, attention_mask, token_type_ids, position_ids, rng=rng)
        start, end = self.qa_outputs(hidden).unbind(-1)
        if attention_mask is not None:
            lowest = torch.finfo(start.dtype).min
            start, end = (logits.masked_fill(attention_mask == 0, lowest) for logits in (start, end))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (_span_loss(start, start_positions) + _span_loss(end, end_positions)) / 2
        return QuestionAnsweringOutput(loss, start, end)


class ElectraForMultipleChoice(_WithEncoder):
    """The best of several continuations."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.sequence_summary = SequenceSummary(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        for head in (self.sequence_summary, self.classifier):
            initialize(head, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> ElectraOutput:
        """``[B, C, S]`` inputs to logits ``[B, C]``; with ``labels [B]`` the mean cross-entropy."""
        choices = input_ids.shape[1]
        inputs = (
            None if x is None else x.flatten(0, 1) for x in (input_ids, attention_mask, token_type_ids, position_ids)
        )
        flat_ids, mask, *rest = inputs
        hidden = self.electra(flat_ids, mask, *rest, rng=rng)
        logits = self.classifier(self.sequence_summary(_first_token(hidden, mask))).view(-1, choices)
        return ElectraOutput(None if labels is None else F.cross_entropy(logits.float(), labels), logits)


def classifier_dropout(config: ElectraConfig) -> float:
    """Dropout of the classification heads: its own, or the hidden layers'."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _clear_padding(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Zeros at padding, in values and gradients, for ``x [B, S, ...]``."""
    if attention_mask is None:
        return x
    return x.masked_fill((attention_mask == 0).view(*attention_mask.shape, *(1,) * (x.ndim - 2)), 0)


def _first_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """``[B, S, N]`` to the hidden state ``[B, N]`` of each row's first real token."""
    if attention_mask is None:
        return hidden[:, 0]
    first = (attention_mask != 0).int().argmax(1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), first]


def _token_loss(logits: Tensor, labels: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
    if labels is None:
        return None
    if attention_mask is not None:
        labels = labels.masked_fill(attention_mask == 0, IGNORED)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def _span_loss(logits: Tensor, positions: Tensor) -> Tensor:
    length = logits.shape[1]
    return F.cross_entropy(logits.float(), positions.view(-1).clamp(0, length), ignore_index=length)
