"""``electra-fast status``: how a run is doing, in the terminal."""

from pathlib import Path
from typing import Annotated

import typer

_CURVES = (
    ("generator_loss", "gen. loss, nats", "{:.3f}"),
    ("loss_minus_entropy", "disc. loss – chance", "{:+.3f}"),
    ("auc", "disc. AUC", "{:.3f}"),
    ("fake_rate", "fake tokens", "{:.1%}"),
)
_SPLITS = (("train", "training"), ("validation", "held out"))


def status(
    run: Annotated[
        Path, typer.Argument(help="Directory of a run: the --output of pretrain or demo.", show_default=False)
    ],
    json_: Annotated[bool, typer.Option("--json", help="The newest figures as JSON, for scripts.")] = False,
) -> None:
    """How a run is doing: how far, how long still, its curves, and whether the discriminator is learning.

    Reads what the run has written, so it may be asked at any time, also while it runs. A discriminator that knows only
    how many tokens are fake has a loss of chance (the entropy of their share) and an AUC of 0.5; learning is a loss
    below that, and an AUC above.
    """
    from electra_fast.workflows.pretraining import run_status

    found = run_status(run)
    if json_:
        typer.echo(_as_json(found))
    else:
        _print(found)


def _as_json(found) -> str:
    import json
    import math

    shown = {
        name: getattr(found, name) for name in ("state", "step", "total_steps", "seconds", "seconds_left", "checkpoint")
    }
    shown["seconds_since_report"] = None if math.isnan(found.reported) else found.reported
    shown |= {split: next((r for r in reversed(found.records) if r["split"] == split), None) for split, _ in _SPLITS}
    return json.dumps({**shown, "verdict": list(found.verdict)}, indent=2)


def _print(found) -> None:
    from rich.console import Console
    from rich.table import Table

    from electra_fast.workflows.pretraining.display import clock
    from electra_fast.workflows.pretraining.status import sparkline

    console = Console()
    parts = [f"step {found.step:,} of {found.total_steps:,} ({found.step / found.total_steps:.0%})", found.state]
    if found.seconds:
        parts.append(f"{clock(found.seconds)} so far")
    if found.state != "finished" and found.seconds_left is not None:
        parts.append(f"{clock(found.seconds_left)} left")
    if (speed := found.last("train", "tokens_per_second")) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if (mfu := found.last("train", "mfu")) is not None:
        parts.append(f"MFU {mfu:.0%}")
    console.print(" · ".join(parts), highlight=False, style="bold")
    kept = "no checkpoint yet" if found.checkpoint is None else f"newest checkpoint: step {found.checkpoint:,}"
    ago = "" if found.reported != found.reported else f"; last report {clock(found.reported)} ago"
    console.print(f"{kept}{ago}", highlight=False, style="dim")
    width = max(8, min(40, console.width - 54))  # what the other columns leave
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(4):
        table.add_column(no_wrap=True)
    for name, title, form in _CURVES:
        for split, where in _SPLITS:
            if values := found.series(split, name):
                ends = f"{form.format(values[0])} → {form.format(values[-1])}"
                table.add_row(title, where, ends, sparkline(values, width))
    if table.row_count:
        console.print(table)
    for remark in found.verdict:
        console.print(remark, highlight=False, soft_wrap=True)
    if found.state == "stopped":
        console.print(
            f"Go on with: electra-fast pretrain --output {found.output} --resume", style="dim", soft_wrap=True
        )
