"""The hyperparameters of ELECTRA's pretraining (google-research/electra ``configure_pretraining.py``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from electra_fast.errors import ConfigError

from .fields import check_at_least, check_probability, check_types

INITIALIZATIONS = ("google", "local", "local-glorot")
OBJECTIVES = ("electra", "electric", "mlm")
EMBEDDING_SHARINGS = ("full", "gdes", "none")
MASKINGS = ("token", "word")
TEMPERATURE_SCHEDULES = ("constant", "exponential")

_CHOICES = {
    "objective": OBJECTIVES,
    "embedding_sharing": EMBEDDING_SHARINGS,
    "initialization": INITIALIZATIONS,
    "masking": MASKINGS,
    "temperature_schedule": TEMPERATURE_SCHEDULES,
}


@dataclass(frozen=True)
class PretrainingConfig:
    """How an ELECTRA is pretrained. The defaults are those of ELECTRA-small.

    Objectives, sharing, masking and schedules are explained, with their sources, in docs/objectives.md.

    Attributes:
        objective: "electra"; "electric", noise-contrastive estimation with a two-tower generator; or "mlm", masked
            language modelling of one network of the discriminator's size.
        embedding_sharing: of generator and discriminator: "full" (one module), "gdes" (the discriminator's tables are
            the generator's, without gradient, plus trained differences) or "none".
        freeze_generator: the generator is not trained and drops nothing; its loss is no part of the loss.
        generator_hidden_fraction: the generator's hidden size over the discriminator's.
        generator_layers_fraction: the generator's number of layers over the discriminator's.
        generator_attention_heads, generator_intermediate_size: 0: one head for every 64 of its hidden size, and 4 times
            the hidden size.
        initialization: "google" (truncated normal, as published), "local" (attention starts on the neighbours, which
            shortens the start on little text) or "local-glorot" (larger linear layers, too; `local_initialization`).
        uniform_generator: no generator network; replacements are drawn uniformly from the vocabulary.
        sequence_length: most tokens of a sequence, [CLS] and [SEP] included.
        mask_probability: share of a sequence's tokens that is chosen for prediction.
        masking: "token": each token for itself; "word": whole words, as far as they fit into that share.
        replace_probability: chance that a chosen token becomes [MASK]; otherwise it stays (no random replacement).
        google_exact: choose with replacement and cap each sequence as Google's code does
            (`max_predictions_per_sequence`); the default draws distinct positions.
        temperature: of the softmax that replacements are sampled from; the loss is taken at 1.
        temperature_schedule: "constant", or "exponential": starts at ``initial_temperature`` and approaches
            ``temperature`` (`temperature_at`).
        initial_temperature, temperature_decay: of the exponential schedule; the latter in shares of all steps.
        disallow_correct: never sample the original token.
        generator_weight, discriminator_weight: of the two losses in their sum (the paper's λ is the latter).
        learning_rate: peak of the schedule ``lr · (1 - step/total_steps)^decay_power · min(1, step/warmup_steps)``.
        batch_size: sequences in an optimiser step, over all devices.
        warmup_steps, total_steps, decay_power: of that schedule.
        adam_beta1, adam_beta2, adam_epsilon: of Adam without bias correction, epsilon outside the root.
        weight_decay: decoupled, times the learning rate; not on biases and layer norms.
        clip_norm: global norm that gradients are clipped to.

    Raises:
        ConfigError: a value is ill-typed or out of range.
    """

    objective: str = "electra"
    embedding_sharing: str = "full"
    freeze_generator: bool = False
    generator_hidden_fraction: float = 0.25
    generator_layers_fraction: float = 1.0
    generator_attention_heads: int = 0
    generator_intermediate_size: int = 0
    initialization: str = "google"
    uniform_generator: bool = False
    sequence_length: int = 128
    mask_probability: float = 0.15
    masking: str = "token"
    replace_probability: float = 0.85
    google_exact: bool = False
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    initial_temperature: float = 2.0
    temperature_decay: float = 0.1
    disallow_correct: bool = False
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0
    learning_rate: float = 5e-4
    batch_size: int = 128
    warmup_steps: int = 10_000
    total_steps: int = 1_000_000
    decay_power: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"PretrainingConfig: {name} must be {' or '.join(choices)}, got {getattr(self, name)!r}"
                )
        positive = (
            "generator_hidden_fraction",
            "generator_layers_fraction",
            "temperature",
            "initial_temperature",
            "temperature_decay",
            "adam_epsilon",
            "clip_norm",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"PretrainingConfig: {name} must be greater than 0, got {getattr(self, name)}")
        check_at_least(self, 3, "sequence_length")  # [CLS], one token, [SEP]
        check_at_least(self, 1, "batch_size", "total_steps")
        check_at_least(self, 0, "generator_attention_heads", "generator_intermediate_size")
        check_at_least(self, 0, "generator_weight", "discriminator_weight")
        check_at_least(self, 0, "learning_rate", "warmup_steps", "decay_power", "weight_decay")
        check_probability(self, "adam_beta1", "adam_beta2")
        check_probability(self, "mask_probability", "replace_probability", closed=True)
        self._check_together()

    def _check_together(self) -> None:
        """ConfigError for options that exclude each other."""
        if self.masking == "word" and self.google_exact:
            raise ConfigError("google_exact draws single tokens, with replacement: it excludes masking word")
        if self.uniform_generator and (self.freeze_generator or self.embedding_sharing == "gdes"):
            raise ConfigError(
                "uniform_generator means that there is no generator network: it excludes freeze_generator and "
                "embedding_sharing gdes"
            )
        if self.freeze_generator and self.embedding_sharing == "full":
            raise ConfigError(
                "freeze_generator needs embedding_sharing gdes or none: embeddings that are shared in full are trained "
                "with the discriminator, and the generator would change with them"
            )
        if self.objective != "electra" and (self.freeze_generator or self.uniform_generator):
            raise ConfigError(
                f"objective {self.objective} trains its generator: it excludes freeze_generator and uniform_generator"
            )
        if self.objective == "mlm" and self.embedding_sharing != "full":
            raise ConfigError("objective mlm has one network: leave out embedding_sharing")
        if self.objective == "electric" and (self.disallow_correct or not 0.0 < self.mask_probability < 1.0):
            raise ConfigError(
                "objective electric needs noise that is the generator's own: mask_probability between 0 and 1 and no "
                "disallow_correct"
            )

    def temperature_at(self, step: int) -> float:
        """The temperature of update ``step`` (from 0): ``T + (T_0 - T) · exp(-step / (τ · total_steps))``.

        T is ``temperature``, T_0 ``initial_temperature``, τ ``temperature_decay``; constant schedule: T. Source: the
        exponential decay of Fast-ELECTRA (Dong et al., ICLR 2024).
        """
        if self.temperature_schedule == "constant":
            return self.temperature
        decay = math.exp(-step / (self.temperature_decay * self.total_steps))
        return self.temperature + (self.initial_temperature - self.temperature) * decay

    @property
    def max_predictions_per_sequence(self) -> int:
        """Google's cap on the chosen tokens of a sequence, ``int((mask_probability + 0.005) · sequence_length)``."""
        return int((self.mask_probability + 0.005) * self.sequence_length)
