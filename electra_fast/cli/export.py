"""``electra-fast export``: a model in a format that runs without this package."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from electra_fast.workflows.deployment.export import ExportReport


class Format(str, Enum):
    """What is written."""

    hf = "hf"
    onnx = "onnx"
    torch_export = "torch-export"
    aoti = "aoti"


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Run of finetune or pretrain, or any Hugging Face directory of an ELECTRA.", show_default=False
        ),
    ],
    format: Annotated[
        Format,
        typer.Option(
            help="A transformers directory, a graph for ONNX Runtime, a program of torch.export, or machine code that "
            "AOTInductor compiles.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write.", show_default=False)],
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Texts to compare on, one a line, a tab between the two of a pair. [dim]\\[default: built-in ones][/]"
        ),
    ] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="onnx: fuse operators with ONNX Runtime's tools, whose own they become.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="onnx: write a model of 8 bits beside it, and say what it costs.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Largest difference from the source that is let pass.")] = 1e-4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in OUTPUT.")] = False,
) -> None:
    """Write a model in a format that needs nothing of electra-fast.

    It is compared with the model it is made from, on random and on real inputs of many lengths and batch sizes; if any
    output differs, nothing is written. Code that runs it lies beside it, in README.md.

    [bold]Examples[/]

    [dim]$[/] electra-fast export runs/reviews --format onnx --output reviews.onnx

    [dim]$[/] electra-fast export runs/reviews --format onnx --optimize --int8 --samples texts.txt -o small

    [dim]$[/] electra-fast export runs/first --format hf --output electra-mine
    """
    from rich.console import Console

    from electra_fast.workflows.deployment.export import export as job

    console = Console()
    with console.status("") as status:
        report = job(
            model,
            format.value,
            output,
            samples=samples,
            optimize=optimize,
            int8=int8,
            tolerance=tolerance,
            overwrite=overwrite,
            listen=lambda stage: status.update(stage),
        )
    _show(console, report)


def _show(console: Console, report: ExportReport) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("compared on", "batch", "largest difference", *(["8 bits"] if report.int8 else [])):
        table.add_column(name, justify="left" if name == "compared on" else "right")
    eight = report.int8.differences if report.int8 else [None] * len(report.differences)
    for exact, rough in zip(report.differences, eight, strict=True):
        table.add_row(exact.case, exact.shape, f"{exact.largest:.1e}", *([f"{rough.largest:.2g}"] if rough else []))
    console.print(table)
    times = f"transformers {report.source_milliseconds:.1f} ms, {report.format} {report.milliseconds:.1f} ms"
    if report.int8:
        times += f", 8 bits {report.int8.milliseconds:.1f} ms"
        if report.int8.agreement is not None:
            console.print(f"8 bits: {report.int8.agreement:.1%} of the decisions stay the same", highlight=False)
        console.print(f"8 bits: {_megabytes(report.int8.bytes)} instead of {_megabytes(report.bytes)}", highlight=False)
    console.print(f"a batch of {report.timed}: {times}", highlight=False)
    console.print(f"{report.output}: {report.architecture}, {_megabytes(report.bytes)}", highlight=False)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
