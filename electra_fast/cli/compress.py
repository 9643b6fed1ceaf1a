"""``electra-fast compress``: a smaller or faster model, and what that costs. Options are those of `CompressOptions`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from electra_fast.cli.options import given as options_given
from electra_fast.cli.options import parameters
from electra_fast.errors import ConfigError
from electra_fast.workflows.deployment.compress.options import CompressOptions

if TYPE_CHECKING:
    from electra_fast.workflows.deployment.compress import CompressReport

_EXAMPLES = (
    "electra-fast compress runs/sentiment --method distill --train train.tsv --dev dev.tsv --layers 4 -o small",
    "electra-fast compress runs/sentiment --method prune --train train.tsv --dev dev.tsv --heads 3 -o pruned",
    "electra-fast compress runs/sentiment --method int8 --dev dev.tsv -o fast",
)


def compress(model: str, **given: Any) -> None:
    """Parse, call, show."""
    from rich.console import Console

    from electra_fast.workflows.deployment import compress as workflow

    console = Console()
    options = {"model": model, **options_given(given)}
    for name in ("method", "output", "dev"):
        if name not in options:
            raise ConfigError(f"{name} is missing: see electra-fast compress --help")
    report = workflow.compress(
        CompressOptions(**options), say=lambda line: console.print(line, highlight=False, soft_wrap=True)
    )
    _show(console, report)
    if report.signal is not None:
        sys.exit(128 + report.signal)


compress.__doc__ = (
    "Make a fine-tuned model smaller or faster: a student that it teaches, fewer heads and neurons, or products in 8 "
    "bits.\n\nWrites a model like any other for predict, evaluate, serve and export, and compress.json with the "
    "figures of both on the held-out data.\n\n[bold]Examples[/]\n\n"
    + "\n\n".join(f"[dim]$[/] {line}" for line in _EXAMPLES)
)
_OWN = {
    "model": (str, typer.Argument(help="Fine-tuned model: a run of finetune, or its best/.", show_default=False)),
}
_PATHS = dict.fromkeys(("output", "dev", "train"), Path)
compress.__signature__ = inspect.Signature(
    list(
        parameters(
            CompressOptions, _OWN, kinds=_PATHS, short={"output": "-o"}, panels={}, left_out=frozenset(("model",))
        )
    )
)
compress.__annotations__ = {name: p.annotation for name, p in compress.__signature__.parameters.items()}


def _show(console: Any, report: CompressReport) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    before, after = report.before, report.after
    for name in sorted(before.figures, key=lambda name: name != report.metric):
        table.add_row(name, f"{before.figures[name]:.4f}", f"{after.figures[name]:.4f}")
    table.add_row("examples/s", f"{before.examples_per_second:,.1f}", f"{after.examples_per_second:,.1f}")
    table.add_row("precision", before.precision, after.precision)
    table.add_row("parameters", f"{before.parameters:,}", f"{after.parameters:,}")
    table.add_row("MB", f"{before.bytes / 1e6:,.1f}", f"{after.bytes / 1e6:,.1f}")
    console.print(table)
    console.print(f"{report.output}: {report.made}", highlight=False, soft_wrap=True)
