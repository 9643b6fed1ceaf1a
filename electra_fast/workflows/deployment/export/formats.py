"""The four formats: each writes a model into a folder, and opens what it wrote as its user would.

Plain attention, as `transformers` writes it out, goes to ONNX, whose runtimes know its pattern; the others get torch's
``scaled_dot_product_attention``. Our own ops are in none of them: a file with them needs this package, built for the
machine, to be read, and a file without runs wherever torch or ONNX Runtime does (docs/deployment.md has the figures).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from electra_fast.errors import ConfigError, ExportError
from electra_fast.extras import require
from electra_fast.workflows.deployment.quiet import errors_only
from electra_fast.workflows.evaluation.calibration import TEMPERATURE_NAME

from .comparison import Run, run_of
from .source import INPUTS, TASK_FILE, Source

ONNX_NAME = "model.onnx"
INT8_NAME = "model.int8.onnx"
PROGRAM_NAME = "model.pt2"
_OPSET = 18  # the first with everything that is needed: what reads it is as old as can be
_PROTOBUF_LIMIT = 1_900_000_000  # bytes; weights above it lie in a file beside the graph


@dataclass(frozen=True)
class Format:
    """How a format is written into a folder and opened again, and the file of that name which is the model."""

    write: Callable[[Source, Path], None]
    open: Callable[[Source, Path], Run]
    file: str


def trace(source: Source, attention: str) -> ExportedProgram:
    """The network as a graph of torch's operators, every dimension of its inputs free.

    Raises:
        ExportError: this version of `transformers` cannot be traced by this version of torch.
    """
    network = source.network(attention)
    limits = {"batch": None, "choices": None, "tokens": source.config.max_position_embeddings}
    free = {i: Dim(name, min=1, max=limits[name]) for i, name in enumerate(source.head.dimensions)}
    shape = (2, 3, 7) if source.head.choices else (2, 7)
    example = tuple(torch.ones(shape, dtype=torch.int64) for _ in INPUTS)  # one tensor twice would be one input
    try:
        with torch.no_grad(), errors_only():
            return torch.export.export(network, example, dynamic_shapes=(free,) * len(INPUTS))
    except Exception as error:  # torch.export raises many kinds
        import transformers

        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"transformers {transformers.__version__} cannot be traced by torch {torch.__version__}: {reason}"
        ) from error


def _write_huggingface(source: Source, folder: Path) -> None:
    """config.json, model.safetensors, the tokenizer's files; task.json and temperature.json where there are any."""
    with errors_only():
        source.network("eager").model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    for name, there in ((TASK_FILE, source.task), (TEMPERATURE_NAME, source.temperature)):
        if there is not None:
            shutil.copyfile(Path(source.directory) / name, folder / name)


def _open_huggingface(source: Source, folder: Path) -> Run:
    return run_of(dataclasses.replace(source, directory=str(folder)).network("sdpa"))


def _write_onnx(source: Source, folder: Path) -> None:
    require("onnxscript", "export", "--format onnx")
    program = trace(source, "eager")
    large = sum(tensor.nbytes for tensor in program.state_dict.values()) > _PROTOBUF_LIMIT
    with errors_only():
        torch.onnx.export(
            program,
            f=folder / ONNX_NAME,
            input_names=INPUTS,
            output_names=source.head.outputs,
            opset_version=_OPSET,
            external_data=large,
            verbose=False,
        )


def open_onnx(source: Source, path: Path) -> Run:
    """ONNX Runtime on the CPU, with torch's number of threads."""
    onnxruntime = require("onnxruntime", "export", "--format onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        feed = {name: inputs[name].numpy() for name in INPUTS}
        found = session.run(list(source.head.outputs), feed)
        return {name: torch.from_numpy(value) for name, value in zip(source.head.outputs, found, strict=True)}

    return run


def _write_program(source: Source, folder: Path) -> None:
    torch.export.save(trace(source, "sdpa"), folder / PROGRAM_NAME)


def _open_program(source: Source, folder: Path) -> Run:
    return _run_of_call(source, torch.export.load(folder / PROGRAM_NAME).module())


def _write_compiled(source: Source, folder: Path) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InvalidCxxCompiler

    program = trace(source, "sdpa")
    try:
        with errors_only():
            aoti_compile_and_package(program, package_path=str(folder / PROGRAM_NAME))
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "--format aoti compiles C++ and found no compiler: install g++ or clang, or set CXX to one"
        ) from error


def _open_compiled(source: Source, folder: Path) -> Run:
    from torch._inductor import aoti_load_package

    return _run_of_call(source, aoti_load_package(str(folder / PROGRAM_NAME)))


def _run_of_call(source: Source, call: Callable[..., tuple[Tensor, ...]]) -> Run:
    @torch.no_grad()
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = call(*(inputs[name] for name in INPUTS))
        return dict(zip(source.head.outputs, found, strict=True))

    return run


FORMATS = {
    "hf": Format(_write_huggingface, _open_huggingface, "model.safetensors"),
    "onnx": Format(_write_onnx, lambda source, folder: open_onnx(source, folder / ONNX_NAME), ONNX_NAME),
    "torch-export": Format(_write_program, _open_program, PROGRAM_NAME),
    "aoti": Format(_write_compiled, _open_compiled, PROGRAM_NAME),
}
