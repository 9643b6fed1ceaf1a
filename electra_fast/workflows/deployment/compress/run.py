"""Compress: measure the model, make a smaller one, measure that, and write both figures beside it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import electra_fast
from electra_fast.errors import ConfigError
from electra_fast.extras import require
from electra_fast.files import write_text
from electra_fast.workflows.deployment.new_directory import new_directory
from electra_fast.workflows.finetuning.model_directory import TASK_NAME, find_model, load_task_file

from .measure import Measurement, measure
from .options import CompressOptions

if TYPE_CHECKING:
    from electra_fast.workflows.evaluation.predictor import Predictor

REPORT_NAME = "compress.json"
_TASKS = ("classification", "ner", "qa", "choice")


@dataclass(frozen=True)
class CompressReport:
    """What was gained and what it cost.

    Attributes:
        metric: the key of ``figures`` that the task goes by.
        made: what was done, in a sentence.
        signal: the number of the signal that ended training early (the best model so far was kept), or None.
    """

    method: str
    output: Path
    metric: str
    before: Measurement
    after: Measurement
    made: str
    signal: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = dataclasses.asdict(self)
        values.pop("output")
        return values


def compress(options: CompressOptions, *, say: Callable[[str], None] = lambda line: None) -> CompressReport:
    """Make a fine-tuned model smaller or faster, and say what that cost.

    Writes a fine-tuned directory like any other to ``options.output``, whole or not at all, and compress.json in it
    with the figures before and after.

    Args:
        say: called with a line where there is something to tell.

    Raises:
        ConfigError, DataError, CheckpointError: options, data or model cannot be used.
        DivergenceError: training diverged.
    """
    require("transformers", "finetune", "compressing")
    require("datasets", "finetune", "compressing")
    from electra_fast.workflows.evaluation.predictor import load_task
    from electra_fast.workflows.finetuning.preparation import read_split

    directory = find_model(options.model)
    task, policy, _ = load_task_file(directory)
    if task.name not in _TASKS:
        raise ConfigError(f"{directory} is a model for {task.name}: what can be compressed is {', '.join(_TASKS)}")
    with new_directory(Path(options.output), REPORT_NAME, options.overwrite) as folder:
        dev = read_split(task, policy, options.dev).examples[:]

        def load(model: Path, precision: str) -> Predictor:
            return load_task(model, precision=precision, device=options.device, threads=options.threads)

        teacher = load(directory, options.precision)
        say("measuring the model")
        before = measure(teacher, directory, dev)
        signal = None
        if options.method == "int8":
            made = _to_int8(directory, folder)
            after = measure(load(folder, "int8"), folder, dev)
        else:
            from .smaller import make_smaller

            made, signal = make_smaller(options, directory, teacher, dev, folder, say)
            say("measuring the smaller model")
            after = measure(load(folder, options.precision), folder, dev)
        report = CompressReport(options.method, Path(options.output), task.metric, before, after, made, signal)
        given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        values = {**report.to_dict(), "options": given, "version": electra_fast.__version__}
        write_text(folder / REPORT_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return report


def _to_int8(directory: Path, folder: Path) -> str:
    """A copy of the model whose task.json says that it is to be computed in 8 bits.

    The weights stay as they are: they are quantised when they are packed for the processor, which takes no time worth
    saving, and other libraries, and training, go on reading them.
    """
    for path in directory.iterdir():
        if path.is_file() and path.name != REPORT_NAME:
            shutil.copyfile(path, folder / path.name)
    values = json.loads((folder / TASK_NAME).read_text(encoding="utf-8")) | {"precision": "int8"}
    write_text(folder / TASK_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return "the matrices of the encoder's layers are multiplied in 8 bits"
