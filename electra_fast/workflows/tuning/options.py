"""The options of a search over hyperparameters, besides those of fine-tuning."""

# ruff: noqa: RUF009, since option() is only a dataclass field with its help

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import get_type_hints

from electra_fast.errors import ConfigError
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.option_table import check_choices, option
from electra_fast.workflows.pretraining.options import parse_duration

# ELECTRA's recipe has one value of each for every size; the space holds them all, and room on both sides.
DEFAULT_SPACE = {
    "learning_rate": "log:3e-5:1e-3",
    "layer_decay": "0.7,0.8,0.9,1.0",
    "epochs": "int:2:10",
    "batch_size": "16,32",
}
_BY_DEFAULT = 20
_SEARCHED = ("Schedule", "Optimiser")
_ALSO = ("model", "max_length", "doc_stride")


@dataclass(frozen=True)
class TuneOptions:
    """Options of a search; None means what the help says.

    Raises:
        ConfigError: an option is ill-typed, out of range or at odds with another.
    """

    search: tuple | list | None = option(
        "Search",
        "What is searched, as learning_rate=log:1e-5:5e-4, epochs=int:2:5, dropout=float:0:0.3 or batch_size=16,32; "
        "may be given several times. Default: learning rate, layer-wise decay, epochs and batch size around ELECTRA's.",
    )
    space: str | os.PathLike | None = option("Search", "TOML file of such lines; --search adds to it and counts more.")
    sampler: str = option(
        "Search",
        "tpe: Bayesian, learns from the trials before; random; grid: every combination once.",
        "tpe",
        choices=("tpe", "random", "grid"),
    )
    grid_points: int = option("Search", "Values that a grid takes of a range without steps.", 3)
    pruner: str = option(
        "Search",
        "Ends a trial that falls behind: below the median of the others at the same evaluation, or by hyperband.",
        "median",
        choices=("median", "hyperband", "none"),
    )
    trials: int | None = option(
        "Search",
        f"Trials of the whole study, those before an interruption included. Default: {_BY_DEFAULT}; of a "
        "grid all; with --max-time any number.",
    )
    max_time: str | float | None = option(
        "Search", "No trial begins after the trials of the whole study have taken so long (90, 5m, 1h30m)."
    )
    search_seed: int = option("Search", "Of the sampler. (Those of training are --seeds: several for every trial.)", 0)
    final_seeds: int = option(
        "Search",
        "Seeds that the best configuration is trained with at the end, none of them of the search; 0: none.",
        3,
    )
    keep_trials: bool = option("Search", "Keep the models of all trials, not only their figures.", False)

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_types

        check_types(self)
        check_choices(self)
        check_at_least(self, 1, "trials")
        check_at_least(self, 2, "grid_points")
        check_at_least(self, 0, "search_seed", "final_seeds")
        if self.max_time is not None:
            parse_duration(self.max_time)
        if self.search_seed >= 2**31:
            raise ConfigError(f"search_seed must be below 2^31, got {self.search_seed}")

    @property
    def seconds(self) -> float | None:
        return None if self.max_time is None else parse_duration(self.max_time)

    def most_trials(self, of_grid: int | None) -> float:
        """How many trials the study has at most."""
        if of_grid is not None:
            return min(of_grid, self.trials or of_grid)
        return self.trials or (float("inf") if self.max_time is not None else _BY_DEFAULT)


def searchable() -> dict[str, object]:
    """The declared type of every option of fine-tuning that can be searched."""
    hints = get_type_hints(FinetuneOptions)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(FinetuneOptions)
        if field.metadata["panel"] in _SEARCHED or field.name in _ALSO
    }


def is_given(options: FinetuneOptions, name: str) -> bool:
    """Whether an option has another value than when it is left out."""
    return getattr(options, name) != FinetuneOptions.__dataclass_fields__[name].default


def default_space(options: FinetuneOptions) -> dict[str, str]:
    """What is searched where nothing is said: `DEFAULT_SPACE` without the options that were given."""
    space = {name: text for name, text in DEFAULT_SPACE.items() if not is_given(options, name)}
    if options.max_steps is not None:
        space.pop("epochs", None)
    if not space:
        raise ConfigError(f"all of {', '.join(DEFAULT_SPACE)} are given, so nothing is left to search: use search")
    return space
