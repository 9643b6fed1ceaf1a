"""A study that can be interrupted at any moment: every trial and every evaluation is in a SQLite file at once.

A trial that was interrupted is still marked as running there; it goes on, in its own folder, before any new one begins.
What the sampler draws for trial n is fixed by the seed and n, so that an interrupted study tries the same
configurations as one that ran through.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from electra_fast.errors import ConfigError, DivergenceError

from .space import grid

_NAME = "electra-fast tune"
_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    # multivariate: learning rate and epochs go together
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # its trials wait in the study from the start
}
_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(),
    "none": lambda: optuna.pruners.NopPruner(),
}


class Objective(Protocol):
    """Trains with ``params`` in ``folder``, calling ``report(step, value)`` after each evaluation; larger is better."""

    def __call__(self, params: dict[str, Any], folder: Path, report: Callable[[int, float], None]) -> float: ...


def open_study(output: Path, sampler: str, pruner: str, facts: Mapping[str, Any]) -> optuna.Study:
    """The study in ``output/study.db``, which is made if there is none.

    Args:
        sampler: tpe, random or grid.
        pruner: median, hyperband or none.
        facts: what all trials of a study have in common, in JSON's types.

    Raises:
        ConfigError: the study there has other facts (the message names the first), or the file is no study.
    """
    path = output / "study.db"
    try:
        study = optuna.create_study(
            study_name=_NAME,
            storage=f"sqlite:///{path}",
            sampler=_SAMPLERS[sampler](0),
            pruner=_PRUNERS[pruner](),
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # sqlalchemy's and optuna's many
        raise ConfigError(f"{path} is not a study of electra-fast tune ({error}): name another output") from None
    facts = json.loads(json.dumps(facts))
    before = study.user_attrs.get("facts")
    if before is None:
        study.set_user_attr("facts", facts)
        return study
    for name in (*facts, *before):
        if facts.get(name) != before.get(name):
            raise ConfigError(
                f"{output} holds a study with {name} = {before.get(name)!r}, now it is {facts.get(name)!r}: "
                "give the same options to go on with it, or name another output"
            )
    return study


def enqueue_grid(study: optuna.Study, space: Mapping[str, BaseDistribution], points: int, seed: int) -> int:
    """Put every combination into the study, in a random order, unless they are there. Returns how many there are."""
    combinations = grid(space, points)
    random.Random(seed).shuffle(combinations)  # what has been tried after half of the time is spread over all of it
    for combination in combinations[len(study.get_trials(deepcopy=False)) :]:
        study.enqueue_trial(combination)
    return len(combinations)


def run_trials(
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    objective: Objective,
    folder: Path,
    *,
    sampler: str,
    seed: int,
    trials: float,
    seconds: float | None,
) -> Iterator[FrozenTrial]:
    """Run trials, each in a folder of its own, until there are ``trials``, or all have taken ``seconds`` together.

    Those of earlier sessions count. A trial whose loss diverges, or whose batches do not fit the memory, is recorded as
    failed. Any other error ends the study and leaves the trial to be continued.

    Returns:
        Each trial when it has ended.
    """
    while len(ended(study)) < trials and (seconds is None or time_spent(study) < seconds):
        study.sampler = _SAMPLERS[sampler](seed + len(study.get_trials(deepcopy=False)))
        trial = _interrupted(study) or study.ask()
        params = {name: _suggest(trial, name, distribution) for name, distribution in space.items()}
        _run(study, trial, params, objective, folder / f"{trial.number:04d}")
        yield study.get_trials(deepcopy=False)[trial.number]


def time_spent(study: optuna.Study) -> float:
    """Seconds that the trials have taken, those of interrupted ones included."""
    return sum(trial.user_attrs.get("seconds", 0.0) for trial in study.get_trials(deepcopy=False))


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are completed, pruned or failed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _interrupted(study: optuna.Study) -> optuna.Trial | None:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return optuna.Trial(study, running[0]._trial_id) if running else None


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """A value, which is the one of before if the trial has it."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _run(study: optuna.Study, trial: optuna.Trial, params: dict[str, Any], objective: Objective, folder: Path) -> None:
    before = trial.user_attrs.get("seconds", 0.0)
    steps = list(trial.user_attrs.get("steps", []))  # evaluated before an interruption
    began = time.monotonic()

    def report(step: int, value: float) -> None:
        if step in steps:
            return
        steps.append(step)
        trial.report(value, len(steps))  # the first evaluation is compared to the others' first
        trial.set_user_attr("steps", steps)
        if trial.should_prune():
            raise optuna.TrialPruned

    outcome: dict[str, Any] = {}
    try:
        outcome["values"] = objective(params, folder, report)
        if not math.isfinite(outcome["values"]):
            raise DivergenceError(f"the figure to maximise is {outcome['values']}")
    except optuna.TrialPruned:
        outcome = {"state": TrialState.PRUNED}
    except (DivergenceError, torch.OutOfMemoryError) as error:
        trial.set_user_attr("error", str(error).partition("\n")[0])
        outcome = {"state": TrialState.FAIL}
    finally:
        trial.set_user_attr("seconds", before + time.monotonic() - began)
    study.tell(trial, **outcome)
