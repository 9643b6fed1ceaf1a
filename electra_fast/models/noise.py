"""What replaces the masked tokens: a draw from a masked language model, from the uniform distribution, or from a
two-tower cloze model; and the loss of what it is drawn from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from electra_fast import nn as fast
from electra_fast import ops

from .electric import TwoTowerGenerator
from .encoder import ElectraModel
from .heads import ElectraForMaskedLM

SAMPLING, GENERATOR_EMBEDDING = 1, 2  # sites (docs/design.md, Random numbers); the others are in `pretraining`
UNUSED = -100  # the target of a slot that holds no prediction


class Text(NamedTuple):
    """A packed batch: original ids and their places, ``[T]`` each; sequences; the step's random state."""

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor | None
    cu_seqlens: Tensor
    max_seqlen: int
    rng: Tensor

    def real(self) -> Tensor:
        """bool ``[T]``, False for padding."""
        return torch.arange(self.input_ids.shape[0], device=self.input_ids.device) < self.cu_seqlens[-1]

    def embed(self, embeddings: fast.Embeddings, input_ids: Tensor, site: int) -> Tensor:
        """``[T, E]`` of other ids in this text's places."""
        return embeddings(input_ids, self.position_ids, self.token_type_ids, self.rng, site)

    def encode(self, network: ElectraModel, input_ids: Tensor, site: int) -> Tensor:
        """``[T, N]`` of other ids in this text's places; ``site`` is that of the embeddings' dropout."""
        return network.encode(
            self.embed(network.embeddings, input_ids, site), self.cu_seqlens, self.max_seqlen, self.rng
        )


class Sampling(NamedTuple):
    """How to draw: from ``softmax(logits / temperature)``, with or without the original token.

    ``temperature`` is a float, or a tensor ``[]`` that may change from step to step.
    """

    temperature: float | Tensor
    disallow_correct: bool


class Noise(NamedTuple):
    """What a generator did with the text. P slots, T tokens.

    Attributes:
        loss_sum: cross-entropy in nats over what it had to predict; count: how many tokens that were.
        sampled, predicted: ``[P]``, a draw and the most likely token for each slot; 0 in unused ones.
        log_q: ``[T]``, of every token of the text with the draws written into it; only of a two-tower generator.
    """

    loss_sum: Tensor
    count: Tensor
    sampled: Tensor
    predicted: Tensor
    log_q: Tensor | None = None


def masked_lm_noise(
    network: ElectraForMaskedLM, text: Text, masked: ops.MaskedTokens, sampling: Sampling, trained: bool
) -> Noise:
    """ELECTRA's: the generator reads the masked text; only the slots reach the vocabulary.

    ``trained`` is False for a frozen generator: then nothing of it has a gradient.
    """
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        hidden = text.encode(network.electra, masked.input_ids, GENERATOR_EMBEDDING).index_select(0, masked.positions)
        hidden = network.generator_predictions(hidden)
        head = network.generator_lm_head
        generated = _draw(hidden, head.weight, head.bias, masked.targets, text.rng, sampling, trained)
    return _noise(generated, masked)


def uniform_noise(
    vocabulary: int, dtype: torch.dtype, text: Text, masked: ops.MaskedTokens, sampling: Sampling
) -> Noise:
    """All logits equal: the loss is log V, and every token is as likely."""
    hidden = torch.zeros(masked.targets.shape[0], 1, dtype=dtype, device=masked.targets.device)
    weight = hidden.new_zeros(vocabulary, 1)
    return _noise(_draw(hidden, weight, weight[:, 0], masked.targets, text.rng, sampling, trained=False), masked)


def cloze_noise(
    network: TwoTowerGenerator, text: Text, masked: ops.MaskedTokens, sampling: Sampling, special_ids: Tensor
) -> Noise:
    """Electric's: q is known at every token, and the loss is over all that could have been masked.

    With a temperature other than 1, q is still that of temperature 1, as in Google's code.
    """
    ids, real = text.input_ids, text.real()
    embedded = text.embed(network.embeddings, ids, GENERATOR_EMBEDDING)
    hidden = network(embedded, text.cu_seqlens, text.max_seqlen, text.rng)
    weight, bias = network.embeddings.word_embeddings.weight, network.bias
    targets = torch.where(real, ids, UNUSED)
    cloze = _draw(hidden, weight, bias, targets, text.rng, sampling, trained=True)
    candidate = cloze_candidates(ids, text.cu_seqlens, special_ids)

    used = masked.targets != UNUSED
    sampled, predicted = (
        torch.where(used, x.index_select(0, masked.positions), 0) for x in (cloze.sampled, cloze.predicted)
    )
    with torch.no_grad():
        slots = hidden.index_select(0, masked.positions)
        drawn = -ops.generator_head(slots, weight, bias, torch.where(used, sampled, UNUSED), rng=text.rng).loss
        behind = ids.shape[0]  # unused slots write behind the end
        log_q = torch.cat([-cloze.loss.detach(), drawn.new_zeros(1)])
        log_q = log_q.scatter(0, torch.where(used, masked.positions, behind), drawn)[:behind]
    return Noise((cloze.loss * candidate).sum(), candidate.sum(), sampled, predicted, log_q)


def cloze_candidates(input_ids: Tensor, cu_seqlens: Tensor, special_ids: Tensor) -> Tensor:
    """bool ``[T]``: the tokens that Electric's generator is trained on, all but padding and special tokens."""
    real = torch.arange(input_ids.shape[0], device=input_ids.device) < cu_seqlens[-1]
    return real & ~torch.isin(input_ids, special_ids)


def _draw(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    rng: Tensor,
    sampling: Sampling,
    trained: bool,
) -> ops.GeneratorOutput:
    """Losses, draws and predictions in one pass over the vocabulary, or two for a trained generator whose temperature
    changes: the op's temperature is a number of the host, so that a changing one divides the logits' factors here."""
    temperature, disallow_correct = sampling
    drawn = {"disallow_correct": disallow_correct, "rng": rng, "site": SAMPLING}
    if not isinstance(temperature, Tensor):
        return ops.generator_head(hidden, weight, bias, targets, temperature=temperature, **drawn)
    with torch.no_grad():
        tempered = ops.generator_head(
            (hidden / temperature).to(hidden.dtype), weight, (bias / temperature).to(bias.dtype), targets, **drawn
        )
    if not trained:
        return tempered
    return tempered._replace(loss=ops.generator_head(hidden, weight, bias, targets, rng=rng).loss)


def _noise(generated: ops.GeneratorOutput, masked: ops.MaskedTokens) -> Noise:
    count = (masked.targets != UNUSED).sum()
    return Noise(generated.loss.sum(), count, generated.sampled, generated.predicted)
