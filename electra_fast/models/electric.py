"""Electric: an energy-based cloze model, trained by noise-contrastive estimation against a two-tower generator.

Clark, Luong, Le and Manning 2020, "Pre-Training Transformers as Energy-Based Cloze Models" (EMNLP), sections 2.2 and
2.3; google-research/electra ``run_pretraining.py`` (``electric_objective``, ``two_tower_generator``). The probability
that a token is noise is a function of its energy *and* of the noise's density, so that the generator has to say how
likely every token of the text is, in a context that does not hold the token itself: hence one tower that reads from the
left and one from the right, and a vocabulary's logits at every token instead of at the masked ones.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra_fast import nn as fast

from .config import ElectraConfig
from .encoder import ElectraModel
from .heads import GeneratorPredictions
from .initialization import initialize


class TwoTowerGenerator(nn.Module):
    """``q(x_t | x_<t, x_>t)`` at every token, from a causal encoder of the text and one of the text reversed.

    Token t is predicted from ``[left_{t-1}, right_{t+1}]``, zeros standing in beyond a sequence's ends (where Google's
    code rolls around), by ``LN(gelu(dense(x)))`` and the word embeddings' table. The towers share one embedding
    (Google's draw its dropout apart).

    State dict: ``left.*``, ``right.*`` (an `ElectraModel` each), ``predictions.*``, ``bias [V]``.
    """

    def __init__(self, config: ElectraConfig, embeddings: fast.Embeddings | None = None) -> None:
        super().__init__()
        self.left = ElectraModel(config, embeddings)
        self.right = ElectraModel(config, self.left.embeddings)
        for tower in (self.left, self.right):
            for layer in tower.encoder.layer:
                layer.attention.self.causal = True
        self.predictions = GeneratorPredictions(config)
        self.predictions.dense = nn.Linear(2 * config.hidden_size, config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialize(self.predictions, config.initializer_range)

    @property
    def embeddings(self) -> fast.Embeddings:
        """The embedding module of both towers."""
        return self.left.embeddings

    def forward(self, embedded: Tensor, cu_seqlens: Tensor, max_seqlen: int, rng: Tensor) -> Tensor:
        """Embedded text ``[T, E]`` to what the word embeddings' table turns into logits, ``[T, E]``."""
        mirror, has_left, has_right = _neighbours(cu_seqlens, embedded.shape[0])
        left = self.left.encode(embedded, cu_seqlens, max_seqlen, rng)
        right = self.right.encode(embedded.index_select(0, mirror), cu_seqlens, max_seqlen, rng)
        right = right.index_select(0, mirror)
        before = left.roll(1, 0).masked_fill(~has_left.unsqueeze(1), 0)
        after = right.roll(-1, 0).masked_fill(~has_right.unsqueeze(1), 0)
        return self.predictions(torch.cat([before, after], dim=1))


def _neighbours(cu_seqlens: Tensor, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's mirror image in its sequence (padding: itself), and whether there is one before and after it."""
    token = torch.arange(tokens, device=cu_seqlens.device)
    bounds = cu_seqlens.long()
    sequence = torch.searchsorted(bounds[1:], token, right=True).clamp(max=max(bounds.shape[0] - 2, 0))
    begin, end = bounds[:-1].index_select(0, sequence), bounds[1:].index_select(0, sequence)
    real = token < bounds[-1]
    mirror = torch.where(real, begin + end - 1 - token, token)
    return mirror, real & (token > begin), real & (token < end - 1)


def noise_loss(
    logits: Tensor, log_q: Tensor, labels: Tensor, mask: Tensor, mask_probability: float
) -> tuple[Tensor, Tensor]:
    """Electric's loss, summed over rows where ``mask`` is True, and the logits ``[T]`` of a token being noise.

    ``E(x)_t + log q(x_t) + log(p / (1 - p))``, binary cross-entropy with logits against ``labels``.

    Args:
        logits: ``[T]``, the network's own: the energies E, high for a token that does not fit.
        log_q: ``[T]``, of the token that stands there now, without gradient.
        labels: True where the token was drawn from q, even if it is the original.
        mask_probability: p, the share of noise.
    """
    shifted = logits.float() + log_q + math.log(mask_probability / (1.0 - mask_probability))
    losses = F.binary_cross_entropy_with_logits(shifted, labels.float(), reduction="none")
    return torch.where(mask, losses, 0.0).sum(), shifted.detach()
