"""What a search tells while it runs and leaves behind: lines, best.toml, summary.json, pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from electra_fast.files import write_text
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.pretraining.config_file import write_config
from electra_fast.workflows.pretraining.display import clock

from .plots import draw_plots, importances
from .space import as_text
from .study import ended, time_spent

BEST_CONFIG = "best.toml"


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the largest figure, the first of equal ones; None if none is completed."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(completed, key=lambda trial: trial.value, default=None)


class Outcome:
    """Tells what happens in a study on stderr and keeps its files up to date.

    Args:
        most: trials at most, infinite if only the time is limited.
    """

    def __init__(self, study: optuna.Study, options: FinetuneOptions, metric: str, most: float) -> None:
        self._study, self._options, self._metric = study, options, metric
        self._output = options.output_path
        self._of = "" if math.isinf(most) else f" of {most}"

    def begin(self, space: Mapping[str, BaseDistribution]) -> None:
        searched = " ".join(f"{name}={as_text(distribution)}" for name, distribution in space.items())
        _say(f"searching {searched} for the best {self._metric}")
        if count := len(ended(self._study)):
            _say(f"{count} trials are done, in {clock(time_spent(self._study))}{self._best()}")

    def say_begins(self, number: int, params: Mapping[str, Any]) -> None:
        _say(f"trial {number + 1}{self._of}: {_assignments(params)}")

    def add(self, trial: FrozenTrial) -> None:
        """A trial has ended."""
        evaluations = len(trial.intermediate_values)
        if trial.state is TrialState.COMPLETE:
            happened = f"{self._metric} {trial.value:.4f}"
        elif trial.state is TrialState.PRUNED:
            happened = f"pruned after {evaluations} evaluation{'s' if evaluations > 1 else ''}"
        else:
            happened = f"failed: {trial.user_attrs['error']}"
        _say(f"trial {trial.number + 1}{self._of}: {happened}, {clock(trial.user_attrs['seconds'])}{self._best()}")
        self._write(None, {})

    def finish(self, final: Mapping[str, Any] | None, signal: int | None) -> None:
        """The search has ended, or a signal has stopped it."""
        missing = draw_plots(self._study, self._output / "plots", self._metric)
        for name, reason in missing.items() if signal is None else ():
            _say(f"no picture {name}.png: {reason}")
        self._write(final, importances(self._study))
        if signal is not None:
            _say("stopped; the same command goes on")
        elif final is not None:
            of, seeds = final["figures"][self._metric], len(final["seeds"])
            _say(f"trained with the best, {seeds} seeds that no trial had: median {self._metric} {of['median']:.4f}")

    def _best(self) -> str:
        best = best_of(self._study)
        return "" if best is None else f"; best: {best.value:.4f} of trial {best.number + 1}"

    def _write(self, final: Mapping[str, Any] | None, importance: Mapping[str, float]) -> None:
        best = best_of(self._study)
        if best is not None:
            values = dataclasses.replace(self._options, **best.params).to_dict()
            del values["output"]
            comment = (
                f"Trial {best.number + 1}, the best of {len(ended(self._study))}: {self._metric} {best.value:.4f}.\n"
                f"electra-fast finetune {self._options.task} --config {BEST_CONFIG} --output RUN"
            )
            write_config(self._output / BEST_CONFIG, values, comment, FinetuneOptions)
        summary = {
            "metric": self._metric,
            "seconds": round(time_spent(self._study), 1),
            "best": None if best is None else {"trial": best.number + 1, "value": best.value, "params": best.params},
            "importance": dict(importance),
            "final": None if final is None else final["figures"],
            "trials": [_row(trial) for trial in self._study.get_trials(deepcopy=False)],
        }
        write_text(self._output / "summary.json", json.dumps(summary, indent=2) + "\n")


def _row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number + 1,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "params": trial.params,
        "evaluations": list(trial.intermediate_values.values()),
        "seconds": round(trial.user_attrs.get("seconds", 0.0), 1),
        "error": trial.user_attrs.get("error"),
    }


def _assignments(params: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
