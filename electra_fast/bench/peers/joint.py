"""A joint ELECTRA step composed of the parts of `transformers` and torch.

As one writes it today: `ElectraForMaskedLM` and `ElectraForPreTraining` sharing their embeddings, sdpa attention,
Gumbel sampling over the masked positions, `torch.optim.AdamW`, clipping to 1.0. The vocabulary is projected at every
position, because that is what `ElectraForMaskedLM` does; ``gather`` takes the masked positions first, which is the
best that can be assembled of public parts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining


class HuggingFaceJoint(nn.Module):
    """Generator and discriminator with one set of embeddings; ``forward`` returns the joint loss of a padded batch."""

    def __init__(
        self,
        discriminator: ElectraConfig,
        generator: ElectraConfig,
        discriminator_weight: float = 50.0,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.generator = ElectraForMaskedLM._from_config(generator, attn_implementation="sdpa")
        self.discriminator = ElectraForPreTraining._from_config(discriminator, attn_implementation="sdpa")
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        self.discriminator_weight = discriminator_weight
        self.gather = gather

    def forward(
        self,
        input_ids: Tensor,
        masked_ids: Tensor,
        positions: Tensor,
        attention_mask: Tensor,
        sampled: Tensor | None = None,
    ) -> Tensor:
        """``input_ids``, ``masked_ids`` [B, S]; ``positions`` [B, k], of the tokens to be predicted; ``sampled``
        [B, k] replaces the draw, to compare losses on equal inputs.
        """
        loss, logits = self._generate(input_ids, masked_ids, positions, attention_mask)
        if sampled is None:
            with torch.no_grad():
                logits = logits.detach().float()
                noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_min(1e-9)).clamp_min(1e-9))
                sampled = (logits + noise).argmax(-1)
        corrupted = input_ids.scatter(1, positions, sampled)
        is_replaced = (corrupted != input_ids).long()
        discriminator = self.discriminator(input_ids=corrupted, attention_mask=attention_mask, labels=is_replaced)
        return loss + self.discriminator_weight * discriminator.loss

    def _generate(self, ids: Tensor, masked: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the logits [B, k, V] at the positions."""
        network = self.generator
        targets = ids.gather(1, positions)
        if self.gather:
            hidden = network.electra(input_ids=masked, attention_mask=mask).last_hidden_state
            hidden = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            logits = network.generator_lm_head(network.generator_predictions(hidden))
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), logits
        labels = torch.full_like(ids, -100).scatter(1, positions, targets)
        out = network(input_ids=masked, attention_mask=mask, labels=labels)
        return out.loss, out.logits.gather(1, positions.unsqueeze(-1).expand(-1, -1, out.logits.shape[-1]))
