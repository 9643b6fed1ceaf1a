"""``electra-fast explain``: why a model says what it says of one text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from electra_fast.workflows.explanation import Explanation, Reason


class Baseline(str, Enum):
    """What the text is compared with."""

    pad = "pad"
    mask = "mask"


def explain(
    model: Annotated[
        Path,
        typer.Argument(
            help="Fine-tuned directory, or its run; or a pretraining run, whose discriminator is explained.",
            show_default=False,
        ),
    ],
    text: Annotated[
        str, typer.Argument(help="Sentence, quoted; the first of a pair; or the question.", show_default=False)
    ],
    second: Annotated[
        str | None,
        typer.Option("--second", "-2", help="Second sentence of a pair, or the text that the question is about."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("explanation.html"),
    label: Annotated[str | None, typer.Option(help="Explain this label, and not the one that the model gives.")] = None,
    baseline: Annotated[
        Baseline, typer.Option(help="The text is compared with one of [PAD] or [MASK] alone.")
    ] = Baseline.pad,
    steps: Annotated[
        int, typer.Option(min=1, help="Points of the integral; doubled until nearly nothing is unaccounted for.")
    ] = 32,
    most: Annotated[int, typer.Option(min=1, help="Words explained, where each word has a label of its own.")] = 3,
    attention: Annotated[
        bool, typer.Option(help="Pictures of where each head looks, of texts up to 256 tokens.")
    ] = True,
) -> None:
    """Show which words made a model say what it says, and where its heads look, as a page that needs nothing beside it.

    Of a classifier of texts, a tagger, a question answerer, or a discriminator, which says which words it holds for
    replaced. Each word gets its share of the model's log-odds by integrated gradients; the shares add up, and what is
    left over is shown.

    [bold]Examples[/]

    [dim]$[/] electra-fast explain runs/reviews "a film that is not half as bad as its title"

    [dim]$[/] electra-fast explain runs/squad "Who wrote it?" --second "The book was written by Mary Shelley in 1816."

    [dim]$[/] electra-fast explain runs/small "the cat sat on the parliament and purred" --output cat.html
    """
    from rich.console import Console

    from electra_fast.workflows.explanation import explain as find
    from electra_fast.workflows.explanation import write_page

    found = find(model, text, second, label=label, baseline=baseline.value, steps=steps, most=most, attention=attention)
    console = Console()
    console.print(found.verdict, style="bold", markup=False, highlight=False, soft_wrap=True)
    for reason in found.reasons:
        console.print(f"{reason.title}: {_strongest(found, reason)}", markup=False, highlight=False, soft_wrap=True)
        residual = f"  not accounted for: {reason.attribution.residual:+.1e} of {reason.attribution.difference:+.3f}"
        console.print(residual, style="dim", highlight=False)
    typer.echo(write_page(found, output))


def _strongest(found: Explanation, reason: Reason, count: int = 5) -> str:
    """The words that did most, with what they did."""
    ranked = sorted(range(len(reason.words)), key=lambda word: -abs(reason.words[word]))
    return ", ".join(f"{found.tokens.word(word)} {reason.words[word]:+.2f}" for word in ranked[:count])
