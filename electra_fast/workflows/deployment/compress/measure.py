"""What a model is worth and what it costs: figures on held-out examples, examples a second, parameters, bytes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from electra_fast.workflows.evaluation.predictor import Predictor
    from electra_fast.workflows.finetuning.task import Columns

_ROUNDS = 3
_TIMED_EXAMPLES = 512


@dataclass(frozen=True)
class Measurement:
    """Attributes:
    figures: of the held-out examples, under the names of `Task.score`.
    examples_per_second: from tokens to predictions, the median of three rounds; threads: torch's, by then.
    precision: what was computed in. bytes: of model.safetensors.
    """

    figures: dict[str, float]
    examples_per_second: float
    precision: str
    threads: int
    parameters: int
    bytes: int


def measure(predictor: Predictor, directory: Path, examples: Columns) -> Measurement:
    """Score all examples, and time up to 512 of them, tokenised before.

    Args:
        directory: that the predictor's model was loaded from.
        examples: with labels, under the task's canonical names.
    """
    figures = predictor.task.score(predictor.predict_columns(examples), examples)
    encoded = predictor.encode_columns({name: values[:_TIMED_EXAMPLES] for name, values in examples.items()})
    count = len(next(iter(encoded.examples.values())))
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        predictor.decode(predictor.infer(encoded.rows, encoded.lengths), encoded)
        seconds.append(time.perf_counter() - began)
    return Measurement(
        figures=figures,
        examples_per_second=count / statistics.median(seconds),
        precision=predictor.precision,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
        bytes=(directory / "model.safetensors").stat().st_size,
    )
