"""``electra-fast demo``: corpus, tokenizer, pretraining and evaluation in about five minutes, without a download."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the text, the corpus and the run.")
    ] = Path("runs/demo"),
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="How long to train. [dim]\\[default: 5][/]", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random. [dim]\\[default: 0][/]", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
) -> None:
    """Pretrain a small ELECTRA on text that every Python carries, and show what it learned.

    Takes the language reference and the standard library's docstrings (no download), trains a tokenizer, pretrains on
    95 % of the documents and evaluates on the rest. Afterwards OUTPUT/run holds the curves (curves.png), the figures
    (summary.json), and both networks as Hugging Face directories (model/). Given again, it shows them.
    """
    from rich.console import Console

    from electra_fast.cli.progress import preparing
    from electra_fast.workflows import demo as job
    from electra_fast.workflows.pretraining.display import clock

    began = time.monotonic()
    console = Console()
    summary = None if resume else job.summary(output)
    if summary is not None:
        console.print(
            f"The demo in [bold]{output}[/] is finished: {summary['steps']:,} steps, {clock(summary['seconds'])} of "
            f"training. On held-out text:\n{summary['verdict']}",
            highlight=False,
        )
        _show(console, output)
        console.print("To train anew, name another directory: electra-fast demo --output DIRECTORY")
        return
    if not resume:
        console.print(
            "Text of this Python's documentation, a tokenizer of "
            f"{job.VOCABULARY:,} tokens, and a small ELECTRA, in [bold]{output}[/]."
        )
    result = job.demo(output, minutes, seed, resume, lambda: preparing(console))
    if result.signal is not None:
        console.print(f"Go on with: electra-fast demo --output {output} --resume")
        sys.exit(128 + result.signal)
    _show(console, output)
    console.print(f"All of this took {clock(time.monotonic() - began)}.", highlight=False)


def _show(console: Console, output: Path) -> None:
    """What the networks in ``output`` make of a few sentences, and where everything is."""
    from electra_fast.workflows import demo as job
    from electra_fast.workflows.pretraining import find_replaced

    run = output / job.RUN
    console.print()
    console.print(
        "What it learned: the generator rewrote some words (the original in brackets), "
        "the discriminator points at as many."
    )
    console.print("[bold green]✓ found[/]  [bold yellow]✗ missed[/]  [bold red]? false alarm[/]")
    for sentence in find_replaced(run / "model", job.SENTENCES, probability=0.2):
        console.print("  ", sentence, sep="")
    if (run / "curves.png").exists():
        console.print(f"\nCurves: {run / 'curves.png'}")
    console.print(f"Use it: transformers.AutoModel.from_pretrained({str(run / 'model' / 'discriminator')!r})")
