"""The options of self-training, besides those of fine-tuning."""

# ruff: noqa: RUF009, since option() is only a dataclass field with its help

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from electra_fast.errors import ConfigError
from electra_fast.workflows.option_table import option


@dataclass(frozen=True)
class SelfTrainOptions:
    """Options of self-training.

    Raises:
        ConfigError: an option is missing, ill-typed or out of range.
    """

    unlabelled: str | os.PathLike | None = option(
        "Self-training", "Text without labels: .txt with a text a line, or any format of the training data."
    )
    rounds: int = option("Self-training", "Most rounds of labelling and training again.", 3)
    confidence: float = option("Self-training", "Least probability of a label that is taken.", 0.9)
    cap: int | None = option("Self-training", "Most examples that are taken of a label; the surest ones.")
    balanced: bool = option("Self-training", "Take labels in the shares that they have in the training data.", False)
    pseudo_weight: float = option(
        "Self-training", "What a taken example counts in the loss; a labelled one counts 1.", 1.0
    )

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_types

        check_types(self)
        check_at_least(self, 1, "rounds", "cap")
        if self.unlabelled is None:
            raise ConfigError("unlabelled is missing: name a file with texts without labels (--unlabelled)")
        if not Path(self.unlabelled).exists():
            raise ConfigError(f"unlabelled: there is no file {self.unlabelled}")
        if not 0 <= self.confidence <= 1:
            raise ConfigError(f"confidence must be from 0 to 1, got {self.confidence}")
        if not 0 < self.pseudo_weight <= 1:
            raise ConfigError(f"pseudo_weight must be above 0 and at most 1, got {self.pseudo_weight}")
        object.__setattr__(self, "unlabelled", os.path.abspath(os.fspath(self.unlabelled)))
