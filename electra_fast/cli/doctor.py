"""``electra-fast doctor``: versions, devices, instruction sets, and for every op the backend that would run and why
each other one would not.
"""

import json
from enum import Enum
from typing import Annotated

import typer


class Precision(str, Enum):
    """The activations' dtype to ask the backends about."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


def doctor(
    dtype: Annotated[
        Precision, typer.Option(help="Ask the backends about activations of this type.")
    ] = Precision.float32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a bug report or a script.")] = False,
) -> None:
    """Say what this machine has, and for every op which backend would run and why each other one would not."""
    import torch

    from electra_fast.diagnostics import report

    found = report(getattr(torch, dtype.value))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    console = Console()

    def facts(title: str, rows: dict[str, str]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in rows.items():
            table.add_row(f"  {name}", value)
        console.print(table)
        console.print()

    facts("Versions", found.versions)
    for name, device in found.devices.items():
        facts(f"Device {name}", device)
    facts("Native library", found.native)
    for kind, ops in found.ops.items():
        console.print(f"Ops on {kind}, {dtype.value}: the first backend that can run is taken")
        for op, reasons in ops.items():
            chosen = next((backend for backend, reason in reasons.items() if reason is None), None)
            of = ", on weights, which stay float32" if op == "adam" and dtype is not Precision.float32 else ""
            console.print(f"  [bold]{op}[/]: [green]{chosen or 'none'}[/]{of}", highlight=False)
            for backend, reason in reasons.items():
                if backend != chosen:
                    why = reason or f"could run, but comes after {chosen}"
                    console.print(f"      not {backend}: {why}", highlight=False, markup=False, soft_wrap=True)
        console.print()
