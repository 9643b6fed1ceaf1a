"""``electra-fast report``: the page about a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path, typer.Argument(help="Directory of a run: the --output of pretrain or demo.", show_default=False)
    ],
    hourly_price: Annotated[
        float | None, typer.Option(min=0.0, help="Of the machine; the page then says what the run cost.")
    ] = None,
) -> None:
    """Write RUN/report.html: what was trained, curves, figures, time and cost, and whether the discriminator learned.

    One file that needs nothing beside it. A run writes it when it ends; this makes it anew at any time, also while the
    run goes on.
    """
    from electra_fast.workflows.pretraining import write_report

    typer.echo(write_report(run, hourly_price))
