"""Export: write, open again, compare, and only then give the folder its name."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import electra_fast
from electra_fast.errors import ConfigError
from electra_fast.files import write_text
from electra_fast.workflows.deployment.new_directory import new_directory

from . import onnx_tools
from .comparison import Difference, agreement, check, compare, milliseconds, run_of
from .formats import FORMATS, INT8_NAME, open_onnx
from .inputs import Case, random_cases, real_cases
from .readme import readme
from .source import INPUTS, Source, open_source

METADATA_NAME = "export.json"
README_NAME = "README.md"
TOLERANCE = 1e-4
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Int8Report:
    """What 8 bits cost: the largest difference from the source, and the share of decisions that stay the same (None
    where the outputs are none).
    """

    differences: list[Difference]
    agreement: float | None
    milliseconds: float
    bytes: int

    @property
    def largest(self) -> float:
        return max(difference.largest for difference in self.differences)


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it was found to be the same.

    Attributes:
        differences: the largest of every batch.
        timed: shape of the real batch that was timed; source_milliseconds, milliseconds: medians, with torch's number
            of threads.
        bytes: size of the model's file, external data included.
    """

    format: str
    output: Path
    architecture: str
    tolerance: float
    differences: list[Difference]
    timed: str
    source_milliseconds: float
    milliseconds: float
    bytes: int
    int8: Int8Report | None = None

    @property
    def largest(self) -> float:
        return max(difference.largest for difference in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = dataclasses.asdict(self)
        values.pop("output")
        return values


def export(
    model: str | os.PathLike[str],
    format: str,
    output: str | os.PathLike[str],
    *,
    samples: str | os.PathLike[str] | None = None,
    optimize: bool = False,
    int8: bool = False,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    listen: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Write ``model`` in a format that needs nothing of this package, after comparing it with `transformers`' model.

    It is compared in float32 on random ids and real sentences of many lengths and batch sizes, padded on either side,
    alone and in pairs. Beside the model lie tokenizer.json (which pads and cuts as the model needs), export.json (what
    it takes and returns, labels, versions, all differences) and a README.md with code that runs it.

    Args:
        model: a run of pretraining (its discriminator) or of fine-tuning (its best), or any Hugging Face directory of
            an ELECTRA: the encoder, the pretraining networks, or a task's; not one that translates.
        format: "hf": a `transformers` directory; "onnx"; "torch-export": a program for `torch.export.load`; "aoti":
            compiled for this machine, for ``torch._inductor.aoti_load_package``.
        output: a directory that does not exist, or is empty.
        samples: a text file of inputs to compare on, one a line, a tab between the two of a pair; None: built-in ones.
        optimize: onnx: let ONNX Runtime's tools fuse what they can, before it is compared.
        int8: onnx: write a model of 8 bits beside it, and report what that costs.
        tolerance: largest difference of any output that is let pass.
        overwrite: replace an ``output`` that an earlier export wrote.
        listen: called with what is being done.

    Raises:
        ExportError: the exported model differs, or fails; nothing is written.
        ConfigError: an option, or a missing dependency. CheckpointError: ``model``. DataError: ``samples``.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be {', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}, got {format!r}")
    for name, given in (("optimize", optimize), ("int8", int8)):
        if given and format != "onnx":
            raise ConfigError(f"{name} is for format onnx: ONNX Runtime's tools do it; got format {format}")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"tolerance must be a number above 0, got {tolerance}")
    target = Path(os.path.abspath(output))
    with new_directory(target, METADATA_NAME, overwrite) as folder:
        listen("reading the model")
        source = open_source(model)
        cases = random_cases(source) + real_cases(source, samples)
        timed = max(cases, key=lambda case: (not case.name.startswith("random"), case.inputs["input_ids"].numel()))
        report = _write(source, format, folder, target, cases, timed, optimize, int8, tolerance, listen)
        _write_metadata(source, report, folder)
    return report


def _write(
    source: Source,
    format: str,
    folder: Path,
    target: Path,
    cases: list[Case],
    timed: Case,
    optimize: bool,
    int8: bool,
    tolerance: float,
    listen: Callable[[str], None],
) -> ExportReport:
    made = FORMATS[format]
    listen(f"writing {format}")
    made.write(source, folder)
    if optimize:
        listen("fusing operators")
        onnx_tools.optimize(source, folder)
    listen("comparing")
    truth = run_of(source.network("eager"))
    run = made.open(source, folder)
    differences = compare(source.head, truth, run, cases)
    check(differences, tolerance)
    report = ExportReport(
        format=format,
        output=target,
        architecture=source.architecture,
        tolerance=tolerance,
        differences=differences,
        timed=timed.shape,
        source_milliseconds=milliseconds(truth, timed),
        milliseconds=milliseconds(run, timed),
        bytes=_size(folder, made.file),
    )
    if not int8:
        return report
    listen("quantising to 8 bits")
    onnx_tools.quantize(folder)
    small = open_onnx(source, folder / INT8_NAME)
    costs = Int8Report(
        differences=compare(source.head, truth, small, cases),
        agreement=agreement(source, truth, small, cases),
        milliseconds=milliseconds(small, timed),
        bytes=_size(folder, INT8_NAME),
    )
    return dataclasses.replace(report, int8=costs)


def _write_metadata(source: Source, report: ExportReport, folder: Path) -> None:
    """tokenizer.json, export.json and README.md."""
    import transformers

    labels = source.config.id2label
    values = {
        "version": _FORMAT_VERSION,
        "file": FORMATS[report.format].file,
        "inputs": {name: ["int64", *source.head.dimensions] for name in INPUTS},
        "outputs": list(source.head.outputs),
        "max_length": source.max_length,
        "labels": [labels[i] for i in sorted(labels)] if source.architecture in _LABELLED else None,
        "temperature": source.temperature,
        "task": source.task,
        **report.to_dict(),
        "versions": {
            "electra_fast": electra_fast.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if report.format != "hf":
        _write_tokenizer(source, folder / "tokenizer.json")
    if report.format == "aoti":
        values["compiled_for"] = torch.backends.cpu.get_cpu_capability()
    write_text(folder / METADATA_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / README_NAME, readme(source, report.format, report.int8 is not None))


_LABELLED = ("ElectraForSequenceClassification", "ElectraForTokenClassification")


def _write_tokenizer(source: Source, path: Path) -> None:
    """tokenizer.json that pads and cuts by itself, so that the `tokenizers` library alone makes batches of it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(source.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(source.max_length)
    tokenizer.enable_padding(pad_id=source.tokenizer.pad_token_id, pad_token=source.tokenizer.pad_token)
    write_text(path, tokenizer.to_str(pretty=True))


def _size(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))
