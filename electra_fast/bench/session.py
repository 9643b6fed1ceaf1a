"""A run of the suites: measure the roof, then case by case, each written to the records as soon as it is done."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from electra_fast.errors import ConfigError

from . import machine, records, roofline, runner, suites
from .case import Case
from .records import Row
from .worker import Worker


@dataclass(frozen=True)
class Progress:
    """Where a run is: cases done of all, the case's name, what is being done, the rows of a case that was finished."""

    done: int
    total: int
    case: str
    text: str = ""
    rows: tuple[Row, ...] = ()


LEFT_OUT = "left out: no time left"

Listener = Callable[[Progress], None]


def select(names: list[str], device: str, level: str, containing: str = "") -> list[Case]:
    """The cases to run.

    Raises: ConfigError if there is none whose name contains the text.
    """
    chosen = [case for name in names for case in suites.cases(name, device, level) if containing in case.name]
    if not chosen:
        known = [case.name for name in names for case in suites.cases(name, device)]
        nearest = next((name for name in known if containing in name), None)
        hint = f"{nearest!r} is only in a larger selection: use --full" if nearest else f"there are, e.g., {known[:3]}"
        raise ConfigError(f"case {containing!r} matches nothing in {', '.join(names)} on {device}: {hint}")
    return chosen


def spread(cases: list[Case]) -> list[Case]:
    """The first case of every suite, then the second of each, and so on: the order of a run that must end in time."""
    places: dict[str, int] = {}

    def place(case: Case) -> int:
        places[case.suite] = places.get(case.suite, -1) + 1
        return places[case.suite]

    return [case for _, case in sorted(((place(case), case) for case in cases), key=lambda pair: pair[0])]


def find_tcmalloc() -> str:
    """The path of a libtcmalloc of this machine, or ""."""
    places = ("/usr/lib/*/libtcmalloc_minimal.so*", "/usr/lib*/libtcmalloc*.so*", "/usr/local/lib/libtcmalloc*.so*")
    found = [path for place in places for path in sorted(glob.glob(place)) if "debug" not in path]
    return found[0] if found else ""


def measure(
    cases: list[Case],
    device: str,
    out: Path,
    settings: runner.Settings,
    listen: Listener = lambda progress: None,
    minutes: float = math.inf,
) -> tuple[str, list[Row]]:
    """Run the cases; returns the name of the run and its rows, which are in the records by then.

    No case is begun after so many ``minutes``; ``listen`` is told of each that is left out. Ctrl-C is raised on when
    what was measured has been written.
    """
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}"
    file = records.path_in(out)
    total = len(cases)
    began, clock, load = time.monotonic(), machine.clock_mhz(device), machine.load_average()
    roof = roofline.measure(device, on_step=lambda text: listen(Progress(0, total, "roofline", text)))
    facts = {**machine.describe(device), "clock_mhz": clock, "load_average": load}
    facts["tcmalloc"] = Path(settings.tcmalloc).name
    facts["roof"] = {"copy": roof.copy, "matrix": roof.matrix, "how": roof.how}
    records.append_run(file, name, facts)
    rows: list[Row] = []

    def keep(measured: list[Row]) -> None:
        records.append_rows(file, measured)
        rows.extend(measured)

    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []

        def memory_worker() -> Worker:
            if not workers:
                workers.append(Worker(torch.get_num_threads()))
                stack.callback(workers[0].close)
            return workers[0]

        for index, case in enumerate(cases):
            title = f"{case.suite}: {case.name}"
            if time.monotonic() - began > 60 * minutes:
                listen(Progress(index + 1, total, title, LEFT_OUT))
                continue
            listen(Progress(index, total, title))
            tell = lambda text, i=index, t=title: listen(Progress(i, total, t, text))  # noqa: E731
            done = runner.run_case(case, name, roof, settings, memory_worker, tell, keep)
            listen(Progress(index + 1, total, title, f"{time.monotonic() - began:.0f} s", tuple(done)))
    return name, rows
