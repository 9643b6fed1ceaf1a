"""The peer: a straightforward joint ELECTRA step composed of transformers' parts.

`ElectraForMaskedLM` and `ElectraForPreTraining` sharing their embeddings, Gumbel sampling over the masked positions,
`torch.optim.AdamW`, clipping to 1.0:
what one writes with transformers today, with its sdpa attention. The vocabulary is projected at every position,
because that is what `ElectraForMaskedLM` does.
"""

import torch
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining


class HuggingFaceJoint(nn.Module):
    """Generator and discriminator with one set of embeddings; ``forward`` returns the joint loss of a padded batch."""

    def __init__(self, discriminator: ElectraConfig, generator: ElectraConfig, discriminator_weight: float = 50.0):
        super().__init__()
        self.generator = ElectraForMaskedLM._from_config(generator, attn_implementation="sdpa")
        self.discriminator = ElectraForPreTraining._from_config(discriminator, attn_implementation="sdpa")
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        self.discriminator_weight = discriminator_weight

    def forward(
        self,
        input_ids: Tensor,
        masked_ids: Tensor,
        chosen: Tensor,
        attention_mask: Tensor,
        sampled: Tensor | None = None,
    ) -> Tensor:
        """``input_ids``, ``masked_ids`` [B, S]; ``chosen`` [B, S] bool; ``sampled`` replaces the draw, to compare
        losses on equal inputs.
        """
        labels = torch.where(chosen, input_ids, -100)
        generator = self.generator(input_ids=masked_ids, attention_mask=attention_mask, labels=labels)
        if sampled is None:
            with torch.no_grad():
                logits = generator.logits[chosen].float()
                noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_min(1e-9)).clamp_min(1e-9))
                sampled = (logits + noise).argmax(-1)
        corrupted = input_ids.masked_scatter(chosen, sampled)
        is_replaced = (corrupted != input_ids).long()
        discriminator = self.discriminator(input_ids=corrupted, attention_mask=attention_mask, labels=is_replaced)
        return generator.loss + self.discriminator_weight * discriminator.loss


def choose_masked(input_ids: Tensor, special: Tensor, probability: float, mask_id: int) -> tuple[Tensor, Tensor]:
    """ELECTRA's masking as a collator does it: ``probability`` of the tokens that are not special, 85 % of them become
    [MASK].
    """
    scores = torch.rand(input_ids.shape, device=input_ids.device).masked_fill(torch.isin(input_ids, special), -1.0)
    count = max(1, round(input_ids.shape[1] * probability))
    chosen = torch.zeros_like(input_ids, dtype=torch.bool).scatter_(1, scores.topk(count, dim=1).indices, True)
    replaced = chosen & (torch.rand(input_ids.shape, device=input_ids.device) < 0.85)
    return input_ids.masked_fill(replaced, mask_id), chosen
