"""Whether probabilities mean what they say: of the answers given with 80 %, are 80 % right?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from electra_fast.errors import CheckpointError
from electra_fast.extras import require
from electra_fast.files import write_text

TEMPERATURE_NAME = "temperature.json"
_BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """Probabilities against what came true.

    Attributes:
        error: expected calibration error (Guo et al. 2017): mean over the answers of |confidence - share of right ones|
            in the answer's bin; bins are 15 parts of [0, 1] of equal width.
        confidence, accuracy: means over all answers. brier: mean of (probability - came true)².
        bins: (mean confidence, share of right ones, answers) of each bin that is not empty.
    """

    error: float
    confidence: float
    accuracy: float
    brier: float
    bins: list[tuple[float, float, int]]

    @property
    def verdict(self) -> str:
        """In words."""
        gap = self.confidence - self.accuracy
        if abs(gap) < 0.02:
            said = "Its probabilities are right on average"
            return (
                said
                if self.error < 0.05
                else f"{said}, but not one by one: bin by bin they are off by {self.error:.0%}"
            )
        kind = "over-confident" if gap > 0 else "under-confident"
        return f"It is {kind}: sure to {self.confidence:.0%}, right in {self.accuracy:.0%}"


def calibration(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Calibration of answers given with probabilities ``confidence [n]``, of which ``right [n]`` (0 or 1) came true."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        (float(confidence[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in np.unique(place)
    ]
    return Calibration(
        error=sum(count * abs(sure - share) for sure, share, count in bins) / len(right),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        brier=float(((confidence - right) ** 2).mean()),
        bins=bins,
    )


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, so that probabilities are right (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", section 4.2). It changes no label.

    Attributes:
        value: above 1 the model is made less sure. data, examples: what it was fitted on.
        loss_before, loss_after: mean negative log-likelihood there, in nats.
    """

    value: float
    data: str
    examples: int
    loss_before: float
    loss_after: float


def fit_temperature(logits: np.ndarray, truth: np.ndarray, data: str) -> Temperature:
    """The temperature of highest likelihood; between 1/20 and 20.

    Args:
        logits: ``[n, classes]`` with truth int ``[n]``; or ``[n, labels]``, a yes or no each, with truth bool alike.
            Logarithms of probabilities are logits.
        data: for the record.
    """
    optimize = require("scipy.optimize", "finetune", "a temperature")

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if truth.ndim == 2:
            return float(np.logaddexp(0, np.where(truth, -scaled, scaled)).mean())
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(truth)), truth]).mean())

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return Temperature(float(np.exp(found.x)), data, len(truth), loss(0.0), float(found.fun))


def write_temperature(directory: Path, temperature: Temperature) -> None:
    """Keep it beside the model: whoever loads the model from then on gets its probabilities so."""
    write_text(directory / TEMPERATURE_NAME, json.dumps(asdict(temperature), indent=2, ensure_ascii=False) + "\n")


def read_temperature(directory: Path) -> Temperature | None:
    """The temperature of a fine-tuned directory, if it has one. CheckpointError: the file is damaged."""
    path = directory / TEMPERATURE_NAME
    if not path.is_file():
        return None
    try:
        found = Temperature(**json.loads(path.read_text(encoding="utf-8")))
        if not _COLDEST <= found.value <= _HOTTEST:
            raise ValueError(f"value must be from {_COLDEST} to {_HOTTEST}, got {found.value}")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged (remove it, or fit it again): {error}") from None
    return found
