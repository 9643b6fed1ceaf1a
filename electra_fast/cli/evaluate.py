"""``electra-fast evaluate``: how good a fine-tuned model is, how sure one can be of that, and where it goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from electra_fast.cli.choices import Precision

if TYPE_CHECKING:
    from electra_fast.workflows.evaluation import ModelResult


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Fine-tuned directory, or its run. Several are compared pair by pair.",
            show_default=False,
            metavar="MODEL",
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="File with labels, in a format of the task.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for results.json, report.html and the pictures.")
    ] = Path("evaluation"),
    resamples: Annotated[
        int, typer.Option(min=0, help="Sets drawn anew for the 95 % intervals; 0: no intervals, no comparison.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of these draws.")] = 0,
    mistakes: Annotated[int, typer.Option(min=0, help="Wrong answers to show, the surest first.")] = 20,
    temperature_from: Annotated[
        Path | None,
        typer.Option(
            help="Another labelled file: fit a temperature on it, which makes probabilities right, and keep it "
            "beside the model."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 where the hardware multiplies it faster.")
    ] = Precision.auto,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto: a GPU if there is one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. [dim]\\[default: torch's][/]", show_default=False)
    ] = None,
) -> None:
    """Judge fine-tuned models on a file whose labels are known, and write a page about it.

    The page has all figures of the task with 95 % intervals, every class, the confusion matrix, whether probabilities
    mean what they say, short against long texts, and the mistakes that the model was surest of. Of several models it
    also says which differences are more than chance (McNemar's test, or a paired bootstrap).

    [bold]Examples[/]

    [dim]$[/] electra-fast evaluate runs/sentiment --data test.tsv --output sentiment-test

    [dim]$[/] electra-fast evaluate runs/small runs/base runs/int8 --data test.tsv

    [dim]$[/] electra-fast evaluate runs/sentiment --data test.tsv --temperature-from dev.tsv
    """
    from rich.console import Console

    from electra_fast.workflows.evaluation import evaluate as judge
    from electra_fast.workflows.evaluation.report import verdict
    from electra_fast.workflows.evaluation.results import REPORT_NAME

    console = Console()
    with console.status("") as status:
        found = judge(
            models,
            data,
            output,
            resamples=resamples,
            seed=seed,
            mistakes=mistakes,
            temperature_from=temperature_from,
            precision=precision.value,
            device=device,
            threads=threads,
            listen=status.update,
        )
    for model in found.models:
        console.print(_line(model), markup=False, highlight=False, soft_wrap=True)
    for comparison in found.comparisons:
        console.print(verdict(comparison), style="dim", markup=False, highlight=False, soft_wrap=True)
    typer.echo(output / REPORT_NAME)


def _line(found: ModelResult) -> str:
    """A model's figures in one line, the headline first with its interval."""
    from electra_fast.workflows.evaluation.report import interval, ordered, title, written

    parts = [f"{title(name)} {written(name, found.figures[name])}" for name in ordered(found)]
    between = interval(found, found.headline)
    parts[0] += f" (95 %: {between})" if between else ""
    return f"{found.name}, {found.examples:,} examples: {', '.join(parts[:6])}"
