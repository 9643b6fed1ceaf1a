"""A search from beginning to end: trials, the best configuration, pictures, a last training with it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.job import open_directory
from electra_fast.errors import ConfigError
from electra_fast.extras import require
from electra_fast.workflows.finetuning.options import CHANGEABLE, FinetuneOptions
from electra_fast.workflows.pretraining.config_file import read_config

from .options import TuneOptions, default_space, is_given, searchable

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FINAL = "final"
_CONFIG = "config.toml"
_PRECISION = "precision"  # of the study's attributes: what the first trial measured
_FINAL_OF = "final"  # of the study's attributes: the trial whose options the last training has


@dataclass(frozen=True)
class TuneResult:
    """What a search came to.

    Attributes:
        output: its directory. trials: how many have ended.
        best: the options of the best trial that were searched; value: its figure; None and nan before there is one.
        final: the run of the last training, if there was one.
        signal: the number of the signal that ended the search early, or None.
    """

    output: Path
    trials: int
    best: dict[str, Any] | None
    value: float
    final: Path | None
    signal: int | None


class Interrupted(Exception):
    """A signal stopped a training, which has written a checkpoint."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


def tune(options: FinetuneOptions, search: TuneOptions | None = None) -> TuneResult:
    """Search the options of a fine-tuning run, and train with the best.

    Writes study.db (optuna's), and after every trial best.toml (a ``--config`` for finetune), summary.json and plots/;
    then final/, the run of the last training. Called again with the same options it goes on where it was interrupted,
    the trial at work included; with more trials or more time it searches on.

    Args:
        options: what all trials have in common; ``options.seeds`` are those of every trial, of whose figures the median
            counts. search: what is searched, and how.

    Raises:
        ConfigError: an option, or the search space; or ``options.output`` holds another study.
        ElectraError: as `finetune`.
    """
    require("optuna", "tune", "tune")
    from . import study as studies
    from .outcome import Outcome, best_of

    search = search or TuneOptions()
    space = search_space(options, search)
    metric = _metric(options, space)
    with open_directory(options.output_path):
        output = options.output_path
        study = studies.open_study(output, search.sampler, search.pruner, _facts(options, search, space, metric))
        if search.sampler == "grid":
            most = search.most_trials(studies.enqueue_grid(study, space, search.grid_points, search.search_seed))
        else:
            most = search.most_trials(None)
        outcome = Outcome(study, options, metric, most)
        final, signal = None, None
        try:
            outcome.begin(space)
            for trial in studies.run_trials(
                study,
                space,
                _objective(study, options, metric, outcome.say_begins),
                output / "trials",
                sampler=search.sampler,
                seed=search.search_seed,
                trials=most,
                seconds=search.seconds,
            ):
                outcome.add(trial)
                if not search.keep_trials:
                    remove_models(output / "trials" / f"{trial.number:04d}")
            best = best_of(study)
            if best is not None and search.final_seeds:
                final = _train_final(study, best, options, search.final_seeds)
        except Interrupted as stopped:
            signal = stopped.signal
        outcome.finish(final, signal)
        best = best_of(study)
        return TuneResult(
            output=output,
            trials=len(studies.ended(study)),
            best=None if best is None else dict(best.params),
            value=math.nan if best is None else best.value,
            final=None if final is None else output / FINAL,
            signal=signal,
        )


def search_space(options: FinetuneOptions, search: TuneOptions) -> dict[str, BaseDistribution]:
    """The distributions that are searched, checked against what the options may be.

    Raises:
        ConfigError: an unknown option, one that is given as well, text that is no notation, or an end of a range that
            the option may not have.
    """
    from .space import as_text, build_space, ends, parse_assignments, read_space

    written: dict[str, Any] = {} if search.space is None else read_space(search.space)
    written |= parse_assignments(search.search or ())
    space = build_space(written or default_space(options), searchable())
    for name, distribution in space.items():
        if is_given(options, name):
            raise ConfigError(f"{name} is both given ({getattr(options, name)}) and searched: leave one out")
        for value in ends(distribution):
            try:
                dataclasses.replace(options, **{name: value})
            except ConfigError as error:
                raise ConfigError(f"search: {name}={as_text(distribution)}: {error}") from None
    return space


def _metric(options: FinetuneOptions, space: Mapping[str, BaseDistribution]) -> str:
    """The figure that is maximised. It may hang on the data, which are so read and checked before any trial."""
    from electra_fast.workflows.finetuning.checkpoint import load_config, resolve
    from electra_fast.workflows.finetuning.preparation import read_splits

    from .space import ends

    models = ends(space["model"]) if "model" in space else (options.required("model"),)
    longest = min(load_config(resolve(model)).max_position_embeddings for model in models)
    task, _ = read_splits(options, longest)
    return options.metric or task.metric


def _facts(
    options: FinetuneOptions, search: TuneOptions, space: Mapping[str, BaseDistribution], metric: str
) -> dict[str, Any]:
    """What all trials of a study have in common."""
    from electra_fast.workflows.finetuning.preparation import fingerprint

    from .space import as_text

    facts = {name: value for name, value in options.to_dict().items() if name not in CHANGEABLE}
    facts["metric"] = metric
    facts["search"] = " ".join(f"{name}={as_text(distribution)}" for name, distribution in space.items())
    facts |= {name: getattr(search, name) for name in ("sampler", "pruner", "search_seed")}
    if search.sampler == "grid":
        facts["grid_points"] = search.grid_points
    data = {name: getattr(options, name) for name in ("train", "dev")}
    return facts | {f"sha256 of {name}": fingerprint(path)[:16] for name, path in data.items() if path is not None}


def _objective(
    study: optuna.Study, options: FinetuneOptions, metric: str, begins: Callable[[int, dict[str, Any]], None]
) -> Callable[..., float]:
    """Trains as a trial says, in the precision that was found best in the first one."""
    from electra_fast.workflows.finetuning import finetune

    def objective(params: dict[str, Any], folder: Path, report: Callable[[int, float], None]) -> float:
        def evaluated(seed: int, step: int, figures: dict[str, float]) -> None:
            if _PRECISION not in study.user_attrs:
                study.set_user_attr(_PRECISION, read_config(folder / _CONFIG, FinetuneOptions)["precision"])
            if seed == options.seeds[0]:
                report(step, figures[metric])

        begins(int(folder.name), params)
        precision = study.user_attrs.get(_PRECISION, options.precision)
        trial = dataclasses.replace(options, **params, precision=precision, output=str(folder), test=None)
        result = finetune(trial, or_resume=True, on_evaluation=evaluated)
        if result.signal is not None:
            raise Interrupted(result.signal)
        return result.summary["figures"][metric]["median"]

    return objective


def _train_final(
    study: optuna.Study, best: optuna.trial.FrozenTrial, options: FinetuneOptions, count: int
) -> dict[str, Any]:
    """Train with the best trial's options and seeds that no trial had, whose luck the choice cannot hang on.

    Returns:
        The run's summary.
    """
    from electra_fast.workflows.finetuning import finetune

    folder = options.output_path / FINAL
    first = max(options.seeds) + 1
    wanted = [best.number, count]
    if study.user_attrs.get(_FINAL_OF) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        study.set_user_attr(_FINAL_OF, wanted)
    precision = study.user_attrs.get(_PRECISION, options.precision)
    seeds = list(range(first, first + count))
    chosen = dataclasses.replace(options, **best.params, precision=precision, seeds=seeds, output=str(folder))
    result = finetune(chosen, or_resume=True)
    if result.signal is not None:
        raise Interrupted(result.signal)
    return result.summary


def remove_models(run: Path) -> None:
    """Remove all that is large from a fine-tuning run: its folders; figures and options stay."""
    for path in run.iterdir() if run.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
