"""The suites: each a module with ``cases(device)``, most telling first, whose first line says what it measures."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from electra_fast.bench import SUITES
from electra_fast.bench.case import Case, within
from electra_fast.bench.records import Records
from electra_fast.errors import ConfigError


def cases(suite: str, device: str, level: str = "full") -> list[Case]:
    """The cases of a suite on a device, those of ``level`` and below.

    Raises: ConfigError for a suite that does not exist.
    """
    if suite not in SUITES:
        raise ConfigError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}")
    found = import_module(f"{__name__}.{suite}").cases(device)
    chosen = [case for case in found if within(case.level, level)]
    return [replace(c, contenders=tuple(x for x in c.contenders if within(x.level, level))) for c in chosen]


def about(suite: str) -> str:
    """What a suite measures, in a line."""
    return (import_module(f"{__name__}.{suite}").__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def current(records: Records) -> Records:
    """The records without rows of cases that the suites no longer have: a report compares what can be run today."""
    devices = {(row.suite, row.device) for row in records.rows if row.suite in SUITES}
    known = {(suite, case.name, device) for suite, device in devices for case in cases(suite, device)}
    return Records(records.runs, [row for row in records.rows if (row.suite, row.case, row.device) in known])
