"""``electra-fast bench``: measure against the best of what else is there, and show what came of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from electra_fast.bench import SUITES

if TYPE_CHECKING:
    from rich.console import Console

    from electra_fast.bench.records import Row
    from electra_fast.bench.session import Progress

Suite = Enum("Suite", {name: name for name in SUITES}, type=str)


class Device(str, Enum):
    """Where to run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def bench(
    suite: Annotated[
        list[Suite] | None,
        typer.Option(help="Only this suite; give it again for more. Default: all.", show_default=False),
    ] = None,
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = Device.auto,
    case: Annotated[str, typer.Option(help="Only cases whose name contains this.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="One small case a suite, few rounds, nothing compiled.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Every shape, precision and peer: hours.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Measure nothing: list suites and cases.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the records, which are only added to.")] = Path(
        "benchmark-results"
    ),
    seconds: Annotated[
        float | None,
        typer.Option(help="Of rounds, a case (there are 5 at least). Default: 4; with --quick 1.", min=0.0),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no case after so long. Default: no limit.", min=0.0)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: torch's.", min=1)] = None,
    memory: Annotated[bool, typer.Option(help="Take peak memory too, in processes of its own.")] = True,
    tcmalloc: Annotated[
        Path | None, typer.Option(help="libtcmalloc.so for the peers that run with it. Default: this machine's.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Measure nothing: make report.html, plots and records.csv from the records."),
    ] = False,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: fill the tables between the markers of this file.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Records (or their directory) of before: exit code 1 if ours became slower.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="By how much it may have, with --compare.")] = 1.10,
) -> None:
    """Measure this package against transformers, torch.compile, ONNX Runtime and others, each in its best setting.

    All contenders of a case have the same weights and inputs, are checked for equal output first, and are timed in
    interleaved rounds in one process. A peer that is not installed is listed with the reason. Records are appended to
    OUT/records.jsonl as each case is done, so that Ctrl-C loses nothing; the report is made anew after every run.

    Examples: electra-fast bench --quick · electra-fast bench --suite encoder --suite attention --device cpu ·
    electra-fast bench --report · electra-fast bench --compare before/records.jsonl --ratio 1.05
    """
    from rich.console import Console

    from electra_fast.bench import records
    from electra_fast.errors import ConfigError

    console = Console()
    if quick and full:
        raise ConfigError("quick and full exclude each other: leave out one of the two")
    if not ratio >= 1.0:
        raise ConfigError(f"ratio must be at least 1, got {ratio}")
    base = records.read(compare) if compare is not None else None  # a mistake here should not cost a run
    level = "quick" if quick else "full" if full else "default"
    names = [chosen.value for chosen in suite or []] or list(SUITES)
    if list_:
        _list(console, names, _device(device), level)
        return
    if report or readme is not None:
        found = records.read(out)
        rows = found.latest()
    else:
        rows = _measure(console, names, _device(device), level, case, out, seconds, minutes, threads, memory, tcmalloc)
        found = records.read(out)
    if readme is not None:
        from electra_fast.bench.readme import update

        changed = update(readme, found)
        console.print(f"{readme}: {'tables written' if changed else 'up to date'}", markup=False, highlight=False)
    else:
        _report(console, found, out)
    if base is not None:
        _compare(console, rows, base.latest(), ratio)


def _device(device: Device) -> str:
    import torch

    from electra_fast.errors import ConfigError

    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("device cuda is not there: torch finds no GPU; use --device cpu")
    return device.value


def _list(console: Console, names: list[str], device: str, level: str) -> None:
    from electra_fast.bench import suites

    for name in names:
        console.print(f"[bold]{name}[/] {suites.about(name)}", highlight=False, soft_wrap=True)
        for case in suites.cases(name, device, level):
            contenders = ", ".join(contender.name for contender in case.contenders)
            console.print(f"    {case.name}: {contenders}", markup=False, highlight=False, soft_wrap=True)


def _measure(
    console: Console,
    names: list[str],
    device: str,
    level: str,
    case: str,
    out: Path,
    seconds: float | None,
    minutes: float | None,
    threads: int | None,
    memory: bool,
    tcmalloc: Path | None,
) -> list[Row]:
    import torch

    from electra_fast.bench import rounds, runner, session
    from electra_fast.errors import ConfigError

    if tcmalloc is not None and not tcmalloc.is_file():
        raise ConfigError(f"tcmalloc must be a library's file, got {tcmalloc}, which is not there")
    if threads is not None:
        torch.set_num_threads(threads)
    if seconds is None:
        seconds = 1.0 if level == "quick" else 4.0
    plan = rounds.Plan(least=3 if level == "quick" else 5, seconds=seconds)
    allocator = str(tcmalloc.resolve()) if tcmalloc is not None else session.find_tcmalloc()
    cases = session.select(names, device, level, case)
    settings = runner.Settings(plan, memory, allocator)
    limit = math.inf if minutes is None else minutes
    if minutes is not None:
        cases = session.spread(cases)
    with _progress(console) as listen:
        try:
            _, rows = session.measure(cases, device, out, settings, listen, limit)
        except KeyboardInterrupt:
            console.print(f"what was measured is in {out}: electra-fast bench --report shows it", markup=False)
            raise
    return rows


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar over the cases; each case's result is printed above it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from electra_fast.bench.session import LEFT_OUT

    columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("")

        def listen(progress: Progress) -> None:
            text = f"{progress.case}: {progress.text}" if progress.text else progress.case
            bars.update(task, total=progress.total, completed=progress.done, description=text)
            if progress.rows:
                _show(bars.console, progress)
            elif progress.text == LEFT_OUT:
                bars.console.print(text, style="dim", markup=False, highlight=False)

        yield listen


def _show(console: Console, progress: Progress) -> None:
    from electra_fast.bench.records import MEASURED
    from electra_fast.bench.summary import milliseconds

    console.print(f"{progress.case}", style="bold", markup=False, highlight=False)
    ours = min((row.median_ms for row in progress.rows if row.ours and row.status == MEASURED), default=0.0)
    for row in progress.rows:
        if row.status != MEASURED:
            line = f"{row.status}: {row.reason}"
        else:
            share = f"{row.share:5.0%} of {row.bound}" if row.share else ""
            ratio = f"{row.median_ms / ours:5.2f}x ours" if ours and not row.ours else ""
            memory = f"{row.peak_memory_mib:7.0f} MiB" if row.peak_memory_mib is not None else ""
            spread = f"({milliseconds(row.q20_ms)}-{milliseconds(row.q80_ms)})"
            line = f"{milliseconds(row.median_ms):>8} ms {spread:17} {share:16} {memory:11} {ratio}"
        console.print(f"  {row.contender:36} {line}", markup=False, highlight=False, soft_wrap=True)


def _report(console: Console, found: object, out: Path) -> None:
    from electra_fast.bench import records, report, suites

    folder = records.path_in(out).parent
    page = report.write(suites.current(found), folder)
    records.export_csv(found, folder / "records.csv")
    console.print(f"{page}: the report of all records in {folder}", markup=False, highlight=False, soft_wrap=True)


def _compare(console: Console, rows: list[Row], base: list[Row], ratio: float) -> None:
    from rich.table import Table

    from electra_fast.bench.compare import compare
    from electra_fast.bench.summary import milliseconds

    result = compare(rows, base, ratio)
    table = Table("case", "contender", "before, ms", "now, ms", "ratio", box=None)
    slower = {change.row.key for change in result.slower}
    for change in result.changes:
        style = "red" if change.row.key in slower else "" if change.row.ours else "dim"
        row = change.row
        figures = (milliseconds(change.before_ms), milliseconds(row.median_ms), f"{change.ratio:.2f}")
        table.add_row(f"{row.suite}: {row.case}", row.contender, *figures, style=style)
    console.print(table)
    console.print(f"The peers' median ratio, how much the machine has changed: {result.drift:.2f}", highlight=False)
    if result.slower:
        console.print(f"slower than {ratio:.2f} times before: {len(result.slower)}", style="red", highlight=False)
        raise typer.Exit(1)
