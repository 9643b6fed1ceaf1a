"""The hyperparameters of ELECTRA's pretraining (google-research/electra ``configure_pretraining.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from electra_fast.errors import ConfigError

from .fields import check_at_least, check_probability, check_types

INITIALIZATIONS = ("google", "local")


@dataclass(frozen=True)
class PretrainingConfig:
    """How an ELECTRA is pretrained. The defaults are those of ELECTRA-small.

    Attributes:
        generator_hidden_fraction: the generator's hidden size over the discriminator's.
        generator_layers_fraction: the generator's number of layers over the discriminator's.
        initialization: "google" (truncated normal, as published) or "local" (attention starts on the neighbours, which
            shortens the start on little text; `local_initialization`).
        uniform_generator: no generator network; replacements are drawn uniformly from the vocabulary.
        sequence_length: most tokens of a sequence, [CLS] and [SEP] included.
        mask_probability: share of a sequence's tokens that is chosen for prediction.
        replace_probability: chance that a chosen token becomes [MASK]; otherwise it stays (no random replacement).
        google_exact: choose with replacement and cap each sequence as Google's code does
            (`max_predictions_per_sequence`); the default draws distinct positions.
        temperature: of the softmax that replacements are sampled from; the loss is taken at 1.
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

    generator_hidden_fraction: float = 0.25
    generator_layers_fraction: float = 1.0
    initialization: str = "google"
    uniform_generator: bool = False
    sequence_length: int = 128
    mask_probability: float = 0.15
    replace_probability: float = 0.85
    google_exact: bool = False
    temperature: float = 1.0
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
        if self.initialization not in INITIALIZATIONS:
            raise ConfigError(
                f"PretrainingConfig: initialization must be {' or '.join(INITIALIZATIONS)}, got {self.initialization!r}"
            )
        positive = (
            "generator_hidden_fraction",
            "generator_layers_fraction",
            "temperature",
            "adam_epsilon",
            "clip_norm",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"PretrainingConfig: {name} must be greater than 0, got {getattr(self, name)}")
        check_at_least(self, 3, "sequence_length")  # [CLS], one token, [SEP]
        check_at_least(self, 1, "batch_size", "total_steps")
        check_at_least(self, 0, "generator_weight", "discriminator_weight")
        check_at_least(self, 0, "learning_rate", "warmup_steps", "decay_power", "weight_decay")
        check_probability(self, "adam_beta1", "adam_beta2")
        check_probability(self, "mask_probability", "replace_probability", closed=True)

    @property
    def max_predictions_per_sequence(self) -> int:
        """Google's cap on the chosen tokens of a sequence, ``int((mask_probability + 0.005) · sequence_length)``."""
        return int((self.mask_probability + 0.005) * self.sequence_length)
