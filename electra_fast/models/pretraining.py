"""ELECTRA's pretraining step: a generator and a discriminator that share their embeddings, and both losses.

Clark et al. 2020, section 2; google-research/electra ``run_pretraining.py``. The forward pass below reads as the step
goes: mask, generate, replace, discriminate.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast import ops
from electra_fast.rng import fresh

from .config import ElectraConfig
from .encoder import packed_positions
from .heads import ElectraForMaskedLM, ElectraForPreTraining
from .huggingface import save_pretrained
from .local_initialization import initialize_locally

# Where a step draws its random numbers (docs/design.md). Layer i of the generator draws at GENERATOR_LAYERS + 3i
# (attention probabilities), + 1 (attention output) and + 2 (feed-forward output); the discriminator likewise.
MASKING, SAMPLING, GENERATOR_EMBEDDING, DISCRIMINATOR_EMBEDDING = range(4)
GENERATOR_LAYERS = 1000
DISCRIMINATOR_LAYERS = 2000

UNUSED = -100  # the target of a slot that holds no prediction


class PretrainingOutput(NamedTuple):
    """What a step computes; only ``loss`` carries gradients. T tokens, P slots for predictions.

    Attributes:
        loss: ``[]``, ``w_g · generator_loss_sum / count + w_d · discriminator_loss_sum / count``.
        generator_loss_sum, generator_count: cross-entropy over the used slots, in nats, and how many they are.
        discriminator_loss_sum, discriminator_count: binary cross-entropy over real tokens, and how many they are.
        logits: ``[T]``, the discriminator's, positive for "replaced".
        labels: bool ``[T]``, True where the token was replaced by another.
        mask: bool ``[T]``, True for real tokens.
        positions, targets: ``[P]``, which tokens were to be predicted and what they were; 0 and -100 in unused slots.
        sampled, predicted: ``[P]``, the generator's sample and its most likely token; 0 in unused slots.
    """

    loss: Tensor
    generator_loss_sum: Tensor
    generator_count: Tensor
    discriminator_loss_sum: Tensor
    discriminator_count: Tensor
    logits: Tensor
    labels: Tensor
    mask: Tensor
    positions: Tensor
    targets: Tensor
    sampled: Tensor
    predicted: Tensor


class ElectraPretrainingPair(nn.Module):
    """Generator and discriminator, with one embedding module (tables and layer norm) between them.

    Attributes:
        discriminator: `ElectraForPreTraining`; generator: `ElectraForMaskedLM` of ``config.generator()``, or None with
            ``uniform_generator``. Each is a whole model, its embeddings being the other's; a state dict names the
            shared tensors under both.

    Raises:
        ConfigError: special tokens are not set, or the configuration cannot be pretrained.
    """

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        config.check_pretraining()
        self.config = config
        self.discriminator = ElectraForPreTraining(config)
        self.generator: ElectraForMaskedLM | None = None
        fast.assign_sites(self.discriminator.electra.encoder, DISCRIMINATOR_LAYERS)
        if not config.pretraining.uniform_generator:
            self.generator = ElectraForMaskedLM(config.generator(), embeddings=self.embeddings)
            fast.assign_sites(self.generator.electra.encoder, GENERATOR_LAYERS)
        if config.pretraining.initialization == "local":
            networks = [network.electra for network in (self.discriminator, self.generator) if network is not None]
            initialize_locally(networks, config.initializer_range)
        special = (config.pad_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id)
        self.register_buffer("special_ids", torch.tensor(special), persistent=False)

    @property
    def embeddings(self) -> fast.Embeddings:
        """The embedding module of both networks."""
        return self.discriminator.electra.embeddings

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        rng: Tensor | None = None,
        max_seqlen: int | None = None,
        normalizers: tuple[Tensor | float, Tensor | float] | None = None,
        masked: ops.MaskedTokens | None = None,
    ) -> PretrainingOutput:
        """One step's losses, for packed sequences. Shapes are static and nothing is read back by the host.

        Args:
            input_ids: int64 ``[T]``, the original text; token_type_ids, position_ids: ``[T]``, default 0 and the index
                in the sequence.
            cu_seqlens: int32 ``[B+1]``; tokens after the last sequence are padding.
            rng: int64 ``[2]`` = (seed, step): masks, samples and dropout are a function of it. Drawn from torch's
                generator when absent.
            max_seqlen: an upper bound of the sequences' lengths; default: the smaller of T and the position table's
                size.
            normalizers: what the two sums are divided by, instead of this batch's counts: those of all batches and
                devices of the optimiser step, so that neither accumulation nor the number of devices changes it.
            masked: what `mask` returned for the same arguments, where the counts were needed beforehand.
        """
        if cu_seqlens is None:
            raise ValueError("ElectraPretrainingPair: cu_seqlens must be given: input_ids are packed [T]")
        options = self.config.pretraining
        tokens = input_ids.shape[0]
        if rng is None:
            rng = fresh(input_ids.device)
        if position_ids is None:
            position_ids = packed_positions(cu_seqlens, tokens)
        if max_seqlen is None:
            max_seqlen = min(tokens, self.config.max_position_embeddings)
        packed = (cu_seqlens, max_seqlen, rng)
        places = (position_ids, token_type_ids, rng)

        if masked is None:
            masked = self.mask(input_ids, cu_seqlens, rng)
        generated = self._generate(masked, places, packed)
        generator_loss_sum = generated.loss.sum()
        generator_count = (masked.targets != UNUSED).sum()

        corrupted_ids, labels = ops.replace_tokens(input_ids, masked.positions, masked.targets, generated.sampled)
        network = self.discriminator
        embedded = self.embeddings(corrupted_ids, *places, DISCRIMINATOR_EMBEDDING)
        hidden = network.electra.encode(embedded, *packed)
        head = network.discriminator_predictions
        real = torch.arange(tokens, device=input_ids.device) < cu_seqlens[-1]
        discriminator_loss_sum, logits = ops.discriminator_loss(
            head.transform(hidden), head.dense_prediction.weight, head.dense_prediction.bias, labels, real
        )
        discriminator_count = cu_seqlens[-1].long()

        if normalizers is None:
            normalizers = (generator_count.clamp(min=1), discriminator_count.clamp(min=1))
        loss = (
            options.generator_weight * generator_loss_sum / normalizers[0]
            + options.discriminator_weight * discriminator_loss_sum / normalizers[1]
        )
        return PretrainingOutput(
            loss,
            generator_loss_sum.detach(),
            generator_count,
            discriminator_loss_sum.detach(),
            discriminator_count,
            logits,
            labels,
            real,
            masked.positions,
            masked.targets,
            generated.sampled,
            generated.predicted,
        )

    def mask(self, input_ids: Tensor, cu_seqlens: Tensor, rng: Tensor) -> ops.MaskedTokens:
        """The tokens that a step at ``rng`` predicts: what `forward` draws by itself, a pure function of these."""
        options = self.config.pretraining
        sequences = cu_seqlens.shape[0] - 1
        return ops.mask_tokens(
            input_ids,
            cu_seqlens,
            self.special_ids,
            mask_id=self.config.mask_token_id,
            probability=options.mask_probability,
            max_predictions=ops.max_predictions_bound(input_ids.shape[0], sequences, options.mask_probability),
            max_per_sequence=max(1, options.max_predictions_per_sequence) if options.google_exact else None,
            replace_probability=options.replace_probability,
            with_replacement=options.google_exact,
            rng=rng,
            site=MASKING,
        )

    def _generate(self, masked: ops.MaskedTokens, places: tuple, packed: tuple) -> ops.GeneratorOutput:
        """Run the generator on the masked text; only the slots reach the vocabulary."""
        options = self.config.pretraining
        if self.generator is None:  # all logits equal: the loss is log V, and every token is as likely
            slots, vocabulary = masked.targets.shape[0], self.config.vocab_size
            dtype, device = self.embeddings.LayerNorm.weight.dtype, masked.targets.device
            hidden = torch.zeros(slots, 1, dtype=dtype, device=device)
            weight = torch.zeros(vocabulary, 1, dtype=dtype, device=device)
            bias = weight.squeeze(1)
        else:
            network = self.generator
            embedded = self.embeddings(masked.input_ids, *places, GENERATOR_EMBEDDING)
            hidden = network.electra.encode(embedded, *packed).index_select(0, masked.positions)
            hidden = network.generator_predictions(hidden)
            weight, bias = network.generator_lm_head.weight, network.generator_lm_head.bias
        return ops.generator_head(
            hidden,
            weight,
            bias,
            masked.targets,
            temperature=options.temperature,
            disallow_correct=options.disallow_correct,
            rng=places[-1],
            site=SAMPLING,
        )

    def save_pretrained(
        self, directory: str | os.PathLike[str], tokenizer_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """Write ``directory/discriminator`` and ``directory/generator``, each a Hugging Face directory.

        Each has its own config.json and its own copy of the shared embeddings; the tokenizer's files are copied into
        both.
        """
        for name in ("discriminator", "generator"):
            network = getattr(self, name)
            if network is not None:
                save_pretrained(network, os.path.join(directory, name), tokenizer_dir=tokenizer_dir)
