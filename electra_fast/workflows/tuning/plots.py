"""Pictures of a study, by optuna: how the best figure rose, what mattered, and where the good trials lie."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from electra_fast.files import atomic_writer


def draw_plots(study: optuna.Study, folder: Path, metric: str) -> dict[str, str]:
    """Draw history, importance, parallel coordinates and slices as PNGs in ``folder``.

    Returns:
        Why, for each picture that could not be drawn: no matplotlib, or too few trials.
    """
    try:
        import matplotlib
    except ImportError:
        return dict.fromkeys(("history", "importance", "parallel", "slice"), "matplotlib is not installed")
    from optuna.visualization import matplotlib as pictures

    drawings: dict[str, Callable[..., Any]] = {
        "history": pictures.plot_optimization_history,
        "importance": pictures.plot_param_importances,
        "parallel": pictures.plot_parallel_coordinate,
        "slice": pictures.plot_slice,
    }
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    folder.mkdir(parents=True, exist_ok=True)
    missing = {}
    with matplotlib.rc_context({"figure.figsize": (9, 5), "figure.dpi": 110}), warnings.catch_warnings():
        matplotlib.use("agg")
        warnings.simplefilter("ignore")  # that its pictures are experimental, and their layout
        for name, draw in drawings.items():
            if len(completed) < (1 if name == "history" else 2):
                missing[name] = f"too few completed trials ({len(completed)})"
                continue
            try:
                axes = draw(study) if name == "importance" else draw(study, target_name=metric)
            except (RuntimeError, ValueError) as error:  # e.g. all trials equally good: nothing mattered
                missing[name] = str(error).partition("\n")[0]
                continue
            _save(axes, folder / f"{name}.png")
    return missing


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each parameter explains of the differences between trials, summing to one; {} if that is unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few trials say little
        try:
            return optuna.importance.get_param_importances(study)
        except (RuntimeError, ValueError):
            return {}


def _save(axes: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure = getattr(axes, "figure", None) or axes.flat[0].figure
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", bbox_inches="tight")
    pyplot.close(figure)
