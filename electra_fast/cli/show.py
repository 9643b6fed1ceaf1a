"""``electra-fast show``: what a generator makes of a sentence, and what its discriminator notices of that."""

from pathlib import Path
from typing import Annotated

import typer


def show(
    model: Annotated[
        Path, typer.Argument(help="Directory of a run, or the model directory in it.", show_default=False)
    ],
    sentences: Annotated[list[str], typer.Argument(help="One or several sentences, quoted.", show_default=False)],
    probability: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of tokens that are rewritten.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Of which tokens, and of what is written.")] = 0,
) -> None:
    """Let the generator rewrite words of sentences, and the discriminator point at as many as it rewrote.

    A rewritten word is followed by the original in brackets: ✓ found, ✗ missed; ? is a false alarm.
    """
    from rich.console import Console

    from electra_fast.workflows.pretraining import find_replaced

    inner = model / "model"
    console = Console()
    for result in find_replaced(inner if inner.is_dir() else model, sentences, probability=probability, seed=seed):
        console.print(result, soft_wrap=True)
        console.print(f"  {result.found} of {sum(result.replaced)} found", style="dim", highlight=False)
