"""From models and a file with the truth to figures, pictures, mistakes and a page.

OUTPUT/results.json     everything that the page says, for a script
OUTPUT/report.html      the page
OUTPUT/predictions.jsonl, confusion.png, reliability.png      of a model; of several, in a folder each
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from electra_fast.errors import ConfigError, DataError
from electra_fast.files import atomic_writer, write_text

from .bootstrap import interval, resample
from .calibration import Temperature, calibration, fit_temperature, read_temperature, write_temperature
from .judgement import Judgement, judge
from .results import PREDICTIONS_NAME, REPORT_NAME, RESULTS_NAME, Evaluation, ModelResult
from .significance import Comparison, difference_interval, holm, mcnemar, paired_bootstrap
from .slices import by_length

if TYPE_CHECKING:
    from .predictor import Predictor

Listen = Callable[[str], None]


def evaluate(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    mistakes: int = 20,
    temperature_from: str | os.PathLike[str] | None = None,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    listen: Listen = lambda text: None,
) -> Evaluation:
    """Judge fine-tuned models on a file whose labels are known.

    Args:
        models: one, or several of the same task, which are then compared pair by pair on the same examples.
        data: in a format of the task, with labels.
        output: directory for the results; None: nothing is written.
        resamples: sets of examples drawn anew for the 95 % intervals and the comparisons; 0: none.
        seed: of these draws.
        mistakes: most that are kept of a model, those it was surest of.
        temperature_from: another file with labels: a temperature is fitted on it, stored beside each model, and from
            then on used by all that load it.
        precision, device, threads: as for `load_task`.
        listen: is told what goes on.

    Raises:
        ConfigError: an option out of range, models of different tasks, or a temperature for a task without one.
        CheckpointError: a model that is missing or damaged. DataError: the file is; names file and line.
    """
    listed = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    if not listed:
        raise ConfigError("models must name at least one fine-tuned directory, got none")
    for name, value in (("resamples", resamples), ("mistakes", mistakes)):
        if value < 0:
            raise ConfigError(f"{name} must be at least 0, got {value}")
    judged: list[tuple[ModelResult, Judgement]] = []
    drawn: list[dict[str, np.ndarray]] = []
    for name, model in zip(_names(listed), listed, strict=True):
        listen(f"{name}: predicting")
        predictor, temperature = _load(model, temperature_from, precision, device, threads)
        judgement, notes = _judge(predictor, data)
        listen(f"{name}: {len(judgement):,} examples judged; {resamples:,} resamples")
        drawn.append(resample(judgement.figures_of, len(judgement), resamples, seed))
        found = _result(name, str(model), judgement, drawn[-1], mistakes, predictor.precision, temperature, notes)
        judged.append((found, judgement))
    _check_comparable(judged)
    evaluation = Evaluation(
        data=str(data),
        resamples=resamples,
        seed=seed,
        models=[found for found, _ in judged],
        comparisons=_compare(judged, drawn) if resamples else [],
        environment=_environment(),
    )
    if output is not None:
        write(evaluation, output)
    return evaluation


def write(evaluation: Evaluation, output: str | os.PathLike[str]) -> Path:
    """Write results, predictions, pictures and the page into a directory; returns the page's path."""
    from . import pictures, report

    output = Path(output)
    shown: dict[str, dict[str, bytes]] = {}
    for found in evaluation.models:
        folder = output if len(evaluation.models) == 1 else output / found.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in found.predictions)
        write_text(folder / PREDICTIONS_NAME, "".join(lines))
        shown[found.name] = pictures.of(found)
        for name, picture in shown[found.name].items():
            with atomic_writer(folder / name) as stream:
                stream.write(picture)
    write_text(output / RESULTS_NAME, json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    write_text(output / REPORT_NAME, report.document(evaluation, shown))
    return output / REPORT_NAME


def _load(
    model: str | os.PathLike[str],
    temperature_from: str | os.PathLike[str] | None,
    precision: str,
    device: str,
    threads: int | None,
) -> tuple[Predictor, Temperature | None]:
    """A predictor, and the temperature that it has: fitted now, or before."""
    from electra_fast.workflows.finetuning.model_directory import find_model

    from .predictor import load_task

    directory = find_model(Path(model))
    predictor = load_task(directory, precision=precision, device=device, threads=threads)
    if temperature_from is None:
        return predictor, read_temperature(directory)
    predictor.temperature = 1.0
    judgement, _ = _judge(predictor, temperature_from)
    evidence = judgement.evidence()
    if evidence is None:
        raise ConfigError(
            f"temperature_from is for tasks whose answers are labels or choices; {model} is of task "
            f"{predictor.task.name!r}"
        )
    temperature = fit_temperature(*evidence, str(temperature_from))
    write_temperature(directory, temperature)
    predictor.temperature = temperature.value
    return predictor, temperature


def _judge(predictor: Predictor, data: str | os.PathLike[str]) -> tuple[Judgement, list[str]]:
    """Read, clean and predict a file as training's evaluation does."""
    task = predictor.task
    examples, report = task.clean(task.read(data), predictor.policy)
    if not len(examples):
        raise DataError(f"{data} has no row with text and label: there is nothing to evaluate")
    columns = examples[:]
    encoded = predictor.encode_columns(columns)
    predictions = predictor.decode(predictor.infer(encoded.rows, encoded.lengths), encoded)
    report = dataclasses.replace(report, overlong=sum(encoded.rows.get("cut", ())))
    return judge(task, predictions, columns), report.notes()


def _result(
    name: str,
    model: str,
    judgement: Judgement,
    drawn: dict[str, np.ndarray],
    mistakes: int,
    precision: str,
    temperature: Temperature | None,
    hygiene: list[str],
) -> ModelResult:
    intervals = {figure: interval(values) for figure, values in drawn.items()}
    confusion, confidence = judgement.confusion(), judgement.confidence()
    return ModelResult(
        name=name,
        model=model,
        task=judgement.task.name,
        headline=judgement.headline,
        examples=len(judgement),
        figures=judgement.figures,
        intervals={figure: found for figure, found in intervals.items() if found is not None},
        baseline=judgement.baseline(),
        classes=judgement.classes(),
        confusion=None if confusion is None else (confusion[0], confusion[1].tolist()),
        calibration=None if confidence is None else calibration(*confidence),
        temperature=temperature,
        takes_temperature=judgement.evidence() is not None,
        slices=by_length(judgement),
        mistakes=judgement.mistakes(mistakes),
        precision=precision,
        hygiene=hygiene,
        predictions=judgement.predictions,
    )


def _compare(
    judged: Sequence[tuple[ModelResult, Judgement]], drawn: Sequence[dict[str, np.ndarray]]
) -> list[Comparison]:
    """Every pair of models. Where each example is right or wrong and the figure is the share of right ones, McNemar's
    test; otherwise the bootstrap's."""
    found = []
    for (a, (first, one)), (b, (second, other)) in itertools.combinations(enumerate(judged), 2):
        figure = first.headline
        difference = second.figures[figure] - first.figures[figure]
        low, high = difference_interval(drawn[a][figure], drawn[b][figure])
        given = (first.name, second.name, figure, difference, low, high)
        if one.is_share and other.is_share:
            only_first, only_second, p_value = mcnemar(one.values, other.values)
            found.append(Comparison(*given, "McNemar", p_value, only_first, only_second))
        else:
            found.append(Comparison(*given, "paired bootstrap", paired_bootstrap(drawn[a][figure], drawn[b][figure])))
    adjusted = holm([comparison.p_value for comparison in found])
    return [dataclasses.replace(c, p_value=p) for c, p in zip(found, adjusted, strict=True)]


def _check_comparable(judged: Sequence[tuple[ModelResult, Judgement]]) -> None:
    """ConfigError: models of different tasks, or that do not see the same examples."""
    (first, one), *others = judged
    for other, another in others:
        if (first.task, first.headline) != (other.task, other.headline):
            raise ConfigError(
                f"models must be of one task to be compared: {first.model} is of {first.task} ({first.headline}), "
                f"{other.model} of {other.task} ({other.headline})"
            )
        label = one.task.label
        if one.examples[label] != another.examples[label]:
            raise ConfigError(
                f"models must see the same examples to be compared: {first.model} keeps {first.examples:,} and "
                f"{other.model} {other.examples:,}, or reads their labels otherwise (their options for columns or "
                "missing rows differ)"
            )


def _names(models: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The last part of each path (of RUN/best, RUN's), made different where two are alike."""
    names: list[str] = []
    for model in models:
        path = Path(model).resolve()
        name = path.parent.name if path.name == "best" else path.name
        same = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{same + 1}" if name in names else name)
    return names


def _environment() -> dict[str, str]:
    import torch

    import electra_fast

    return {
        "electra_fast": electra_fast.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
