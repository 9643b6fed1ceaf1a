"""ELECTRA's pretraining step: a generator and a discriminator that share their embeddings, and both losses.

Clark et al. 2020, section 2; google-research/electra ``run_pretraining.py``. The forward pass below reads as the step
goes: mask, generate, replace, discriminate. What the options change of it is told, with sources, in docs/objectives.md.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor, nn

from electra_fast import nn as fast
from electra_fast import ops
from electra_fast.errors import ConfigError
from electra_fast.rng import fresh

from .config import ElectraConfig
from .electric import TwoTowerGenerator, noise_loss
from .embedding_sharing import DisentangledEmbeddings, plain_discriminator
from .encoder import ElectraModel, packed_positions
from .heads import ElectraForMaskedLM, ElectraForPreTraining
from .huggingface import save_pretrained
from .local_initialization import initialize_locally
from .noise import UNUSED, Noise, Sampling, Text, cloze_candidates, cloze_noise, masked_lm_noise, uniform_noise

# Where a step draws its random numbers (docs/design.md). Layer i of the generator draws at GENERATOR_LAYERS + 3i
# (attention probabilities), + 1 (attention output) and + 2 (feed-forward output); the discriminator likewise.
MASKING, DISCRIMINATOR_EMBEDDING = 0, 3  # 1 and 2 are those of `noise`
GENERATOR_LAYERS = 1000
DISCRIMINATOR_LAYERS = 2000


class PretrainingOutput(NamedTuple):
    """What a step computes; only ``loss`` carries gradients. T tokens, P slots for predictions.

    Attributes:
        loss: ``[]``, ``w_g · generator_loss_sum / count + w_d · discriminator_loss_sum / count``.
        generator_loss_sum, generator_count: cross-entropy over the used slots, in nats, and how many they are.
        discriminator_loss_sum, discriminator_count: binary cross-entropy over real tokens, and how many they are.
        logits: ``[T]``, the discriminator's, positive for "replaced".
        labels: bool ``[T]``, True where the token was replaced by another (Electric: where it was drawn anew).
        mask: bool ``[T]``, True for real tokens; all False without a discriminator.
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

    Args:
        config: networks and recipe.
        word_starts: bool ``[V]``, which ids begin a word; needed for ``masking`` word.

    Attributes:
        discriminator: `ElectraForPreTraining`, or None with ``objective`` mlm.
        generator: `ElectraForMaskedLM` of ``config.generator()`` (mlm: of ``config`` itself), a `TwoTowerGenerator`
            with electric, or None with ``uniform_generator``. Each is a whole model, its embeddings being the other's
            unless ``embedding_sharing`` says otherwise; a state dict names the shared tensors under both.
        temperature: float32 ``[]``, what `anneal` sets.

    Raises:
        ConfigError: special tokens are not set, or the configuration cannot be pretrained.
    """

    def __init__(self, config: ElectraConfig, word_starts: Tensor | None = None) -> None:
        super().__init__()
        config.check_pretraining()
        self.config = config
        recipe = config.pretraining
        self.discriminator: ElectraForPreTraining | None = None
        self.generator: ElectraForMaskedLM | TwoTowerGenerator | None = None
        if recipe.objective != "mlm":
            self.discriminator = ElectraForPreTraining(config)
            fast.assign_sites(self.discriminator.electra.encoder, DISCRIMINATOR_LAYERS)
        if not recipe.uniform_generator:
            shared = self.embeddings if self.discriminator and recipe.embedding_sharing == "full" else None
            network = TwoTowerGenerator if recipe.objective == "electric" else ElectraForMaskedLM
            self.generator = network(config if recipe.objective == "mlm" else config.generator(), shared)
            fast.assign_sites(_encoders(self.generator), GENERATOR_LAYERS)
        if recipe.initialization != "google":
            networks = [module for module in self.modules() if isinstance(module, ElectraModel)]
            initialize_locally(networks, config.initializer_range, glorot=recipe.initialization == "local-glorot")
        if recipe.embedding_sharing == "gdes":
            self.discriminator.electra.embeddings = DisentangledEmbeddings(config, _embeddings(self.generator))
        if recipe.freeze_generator:
            self.generator.requires_grad_(False)
        if recipe.masking == "word" and (word_starts is None or word_starts.shape != (config.vocab_size,)):
            raise ConfigError(
                "masking word needs word_starts, bool [vocab_size], which ids begin a word: take them from "
                "electra_fast.data.words.word_starts(tokenizer)"
            )
        special = (config.pad_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id)
        self.register_buffer("special_ids", torch.tensor(special), persistent=False)
        self.register_buffer("word_starts", word_starts, persistent=False)
        self.register_buffer("temperature", torch.tensor(recipe.temperature_at(0)), persistent=False)

    @property
    def embeddings(self) -> fast.Embeddings:
        """The discriminator's embedding module, with full sharing that of both networks (mlm: the only one)."""
        return (self.discriminator or self.generator).electra.embeddings

    def anneal(self, step: int) -> None:
        """Set what is a function of the optimiser step about to be taken: the temperature."""
        self.temperature.fill_(self.config.pretraining.temperature_at(step))

    def train(self, mode: bool = True) -> ElectraPretrainingPair:
        """As in torch, but that a frozen generator never drops anything."""
        super().train(mode)
        if self.config.pretraining.freeze_generator:
            self.generator.eval()
        return self

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
        recipe = self.config.pretraining
        tokens = input_ids.shape[0]
        if rng is None:
            rng = fresh(input_ids.device)
        if position_ids is None:
            position_ids = packed_positions(cu_seqlens, tokens)
        if max_seqlen is None:
            max_seqlen = min(tokens, self.config.max_position_embeddings)
        text = Text(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, rng)
        real = text.real()

        if masked is None:
            masked = self.mask(input_ids, cu_seqlens, rng)
        noise = self._generate(text, masked)
        corrupted_ids, labels = ops.replace_tokens(input_ids, masked.positions, masked.targets, noise.sampled)
        if self.discriminator is None:
            discriminator_loss_sum, logits = rng.new_zeros((), dtype=torch.float32), real.float()
            real = torch.zeros_like(real)
        else:
            if recipe.objective == "electric":
                labels = chosen_tokens(masked, tokens)
            discriminator_loss_sum, logits = self._discriminate(text, corrupted_ids, labels, real, noise.log_q)
        discriminator_count = real.sum()

        if normalizers is None:
            normalizers = (noise.count.clamp(min=1), discriminator_count.clamp(min=1))
        loss = recipe.discriminator_weight * discriminator_loss_sum / normalizers[1]
        if not recipe.freeze_generator:
            loss = loss + recipe.generator_weight * noise.loss_sum / normalizers[0]
        return PretrainingOutput(
            loss,
            noise.loss_sum.detach(),
            noise.count,
            discriminator_loss_sum.detach(),
            discriminator_count,
            logits,
            labels,
            real,
            masked.positions,
            masked.targets,
            noise.sampled,
            noise.predicted,
        )

    def _generate(self, text: Text, masked: ops.MaskedTokens) -> Noise:
        """The generator's loss, and what it writes in place of the chosen tokens."""
        recipe = self.config.pretraining
        changes = recipe.temperature_schedule != "constant" and self.training
        sampling = Sampling(self.temperature if changes else recipe.temperature, recipe.disallow_correct)
        if self.generator is None:
            dtype = self.embeddings.LayerNorm.weight.dtype
            return uniform_noise(self.config.vocab_size, dtype, text, masked, sampling)
        if recipe.objective == "electric":
            return cloze_noise(self.generator, text, masked, sampling, self.special_ids)
        return masked_lm_noise(self.generator, text, masked, sampling, trained=not recipe.freeze_generator)

    def _discriminate(
        self, text: Text, corrupted_ids: Tensor, labels: Tensor, real: Tensor, log_q: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The discriminator's loss, summed, and its logits ``[T]``."""
        network = self.discriminator
        hidden = text.encode(network.electra, corrupted_ids, DISCRIMINATOR_EMBEDDING)
        head = network.discriminator_predictions
        if log_q is None:
            projection = head.dense_prediction
            return ops.discriminator_loss(head.transform(hidden), projection.weight, projection.bias, labels, real)
        return noise_loss(head(hidden), log_q, labels, real, self.config.pretraining.mask_probability)

    def mask(self, input_ids: Tensor, cu_seqlens: Tensor, rng: Tensor) -> ops.MaskedTokens:
        """The tokens that a step at ``rng`` predicts: what `forward` draws by itself, a pure function of these."""
        recipe = self.config.pretraining
        sequences = cu_seqlens.shape[0] - 1
        arguments = (input_ids, cu_seqlens, self.special_ids)
        rule = {
            "mask_id": self.config.mask_token_id,
            "probability": recipe.mask_probability,
            "max_predictions": ops.max_predictions_bound(input_ids.shape[0], sequences, recipe.mask_probability),
            "replace_probability": recipe.replace_probability,
            "rng": rng,
            "site": MASKING,
        }
        if recipe.masking == "word":
            return ops.mask_words(*arguments, self.word_starts, **rule)
        return ops.mask_tokens(
            *arguments,
            max_per_sequence=max(1, recipe.max_predictions_per_sequence) if recipe.google_exact else None,
            with_replacement=recipe.google_exact,
            **rule,
        )

    def predictions(self, input_ids: Tensor, cu_seqlens: Tensor, masked: ops.MaskedTokens) -> Tensor:
        """How many tokens the generator's loss is a sum over, int64 ``[]``: the normaliser of that batch alone."""
        if self.config.pretraining.objective == "electric":
            return cloze_candidates(input_ids, cu_seqlens, self.special_ids).sum()
        return (masked.targets != UNUSED).sum()

    def save_pretrained(
        self, directory: str | os.PathLike[str], tokenizer_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """Write ``directory/discriminator`` and ``directory/generator``, each a Hugging Face directory.

        Each has its own config.json and its own copy of the shared embeddings; the tokenizer's files are copied into
        both. A two-tower generator is no model that Hugging Face has, and is left out.
        """
        networks = {}
        if self.discriminator is not None:
            networks["discriminator"] = plain_discriminator(self.discriminator)
        if isinstance(self.generator, ElectraForMaskedLM):
            networks["generator"] = self.generator
        for name, network in networks.items():
            save_pretrained(network, os.path.join(directory, name), tokenizer_dir=tokenizer_dir)


def chosen_tokens(masked: ops.MaskedTokens, tokens: int) -> Tensor:
    """bool ``[tokens]``, True at the positions of the used slots."""
    chosen = torch.zeros(tokens + 1, dtype=torch.bool, device=masked.positions.device)
    return chosen.scatter(0, torch.where(masked.targets == UNUSED, tokens, masked.positions), True)[:tokens]


def _embeddings(generator: ElectraForMaskedLM | TwoTowerGenerator) -> fast.Embeddings:
    return generator.embeddings if isinstance(generator, TwoTowerGenerator) else generator.electra.embeddings


def _encoders(generator: ElectraForMaskedLM | TwoTowerGenerator) -> nn.Module:
    """The layers that draw, in the order of their sites."""
    if isinstance(generator, TwoTowerGenerator):
        return nn.ModuleList([generator.left.encoder, generator.right.encoder])
    return generator.electra.encoder
