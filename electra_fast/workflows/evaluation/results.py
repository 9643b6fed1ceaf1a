"""What an evaluation found, and the names of the files that it is written to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .calibration import Calibration, Temperature
from .judgement import Classes, Mistake
from .significance import Comparison
from .slices import Slice

RESULTS_NAME, REPORT_NAME, PREDICTIONS_NAME = "results.json", "report.html", "predictions.jsonl"
CONFUSION_NAME, RELIABILITY_NAME = "confusion.png", "reliability.png"


@dataclass(frozen=True)
class ModelResult:
    """What was found of one model.

    Attributes:
        name: short, and its own among the models of an evaluation. model: its directory.
        task, headline: the task's name, and the figure by which models are compared.
        figures: all figures by name; intervals: their 95 % intervals, of those that were resampled.
        baseline: what an answer that does not look at the text would get in the headline figure, and which that is.
        confusion: names, and counts by truth (rows) and answer.
        takes_temperature: whether one can be fitted.
        hygiene: what `HygieneReport.notes` says of the file.
        predictions: one for each example that was kept.
    """

    name: str
    model: str
    task: str
    headline: str
    examples: int
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    baseline: tuple[str, float] | None
    classes: Classes | None
    confusion: tuple[list[str], list[list[int]]] | None
    calibration: Calibration | None
    temperature: Temperature | None
    takes_temperature: bool
    slices: list[Slice]
    mistakes: list[Mistake]
    precision: str
    hygiene: list[str]
    predictions: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """One or several models on one file."""

    data: str
    resamples: int
    seed: int
    models: list[ModelResult]
    comparisons: list[Comparison]
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values of everything but the predictions, which have a file of their own."""
        values = dataclasses.asdict(self)
        for model in values["models"]:
            del model["predictions"]
        return values
