"""``electra-fast demo``: corpus, tokenizer, pretraining and evaluation in about five minutes, without a download."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the text, the corpus and the run.")
    ] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0.05, help="How long to train.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
) -> None:
    """Pretrain a small ELECTRA on text that every Python carries, and show what it learned.

    Takes the language reference and the standard library's docstrings (no download), trains a tokenizer, pretrains on
    95 % of the documents and evaluates on
    the rest. Afterwards OUTPUT/run holds the curves (curves.png), the figures (summary.json), and both networks as
    Hugging Face directories (model/).
    """
    from rich.console import Console

    from electra_fast.cli.progress import preparing
    from electra_fast.workflows import demo as job
    from electra_fast.workflows.pretraining import find_replaced

    console = Console()
    console.print(
        "Text of this Python's documentation, a tokenizer of "
        f"{job.VOCABULARY:,} tokens, and a small ELECTRA, in [bold]{output}[/]."
    )
    with preparing(console) as progress:
        job.prepare_corpus(output, progress)
    result = job.demo(output, minutes, seed, resume)
    if result.signal is not None:
        console.print(f"Go on with: electra-fast demo --output {output} --resume")
        sys.exit(128 + result.signal)
    console.print()
    console.print(
        "What it learned: the generator rewrote some words (the original in brackets), "
        "the discriminator points at as many."
    )
    console.print("[bold green]✓ found[/]  [bold yellow]✗ missed[/]  [bold red]? false alarm[/]")
    for sentence in find_replaced(result.output / "model", job.SENTENCES, probability=0.2):
        console.print("  ", sentence, sep="")
    console.print(f"\nCurves: {result.output / 'curves.png'}")
    console.print(f"Use it: transformers.AutoModel.from_pretrained({str(result.output / 'model' / 'discriminator')!r})")
