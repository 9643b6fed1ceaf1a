"""README's tables, generated from records: what stands between the markers is written by a command, never typed.

A table is asked for by ``<!-- bench SUITE [TEXT] -->`` and ends at ``<!-- /bench -->``: the cases of that suite whose
names contain the text (all of them without one).
"""

from __future__ import annotations

import re
from pathlib import Path

from electra_fast.errors import ElectraError
from electra_fast.files import write_text

from .records import Records
from .summary import Summary, milliseconds, summaries

_BLOCK = re.compile(r"<!-- bench (?P<suite>\w+)(?: (?P<text>[^\n]*?))? -->\n(?P<table>.*?)<!-- /bench -->", re.DOTALL)


def table(records: Records, suite: str, containing: str = "") -> str:
    """Markdown: a line a case.

    Raises: ElectraError if no such case was measured.
    """
    rows = [row for row in records.latest() if row.suite == suite and containing in row.case]
    found = sorted(summaries(rows), key=_order)
    if not found:
        raise ElectraError(f"the records have no measured case of {suite!r} with {containing!r} in its name")
    lines = [
        "| case | electra-fast, ms | of roof | best peer, ms | speed-up | over the usual way | peak memory |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_line(summary) for summary in found),
    ]
    return "\n".join([*lines, "", _source(records, found)]) + "\n"


def _order(s: Summary) -> list[tuple[int, str]]:
    """Of the cases' names, numbers by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", s.ours.case)]


def _line(s: Summary) -> str:
    share = f"{s.ours.share:.0%}" if s.ours.share else ""
    memory = f"{s.memory_ratio:.2f}×" if s.memory_ratio is not None else ""
    return (
        f"| {s.ours.case} | {milliseconds(s.ours.median_ms)} | {share} | "
        f"{milliseconds(s.peer.median_ms)} ({s.peer.contender}) | **{s.speedup:.2f}×** | "
        f"{s.speedup_over_first:.2f}× ({s.first.contender}) | {memory} |"
    )


def _source(records: Records, found: list[Summary]) -> str:
    texts = []
    for run in dict.fromkeys(summary.ours.run for summary in found):
        facts = records.runs.get(run, {})
        where = f"{facts.get('device', 'unknown device')}, {facts.get('threads', '?')} threads"
        version = facts.get("versions", {}).get("torch", "?")
        texts.append(
            f"{where}, torch {version}, {facts.get('date', '')[:10]}, commit {facts.get('commit') or 'unknown'}"
        )
    return "; ".join(dict.fromkeys(texts)) + ". Peak memory: ours over the leanest peer's."


def render(text: str, records: Records) -> str:
    """``text`` with every table between markers made anew."""

    def fill(match: re.Match[str]) -> str:
        head = match[0][: match.start("table") - match.start()]
        return f"{head}{table(records, match['suite'], match['text'] or '')}<!-- /bench -->"

    return _BLOCK.sub(fill, text)


def update(file: Path, records: Records) -> bool:
    """Write the tables of a file; whether that changed it.

    Raises: ElectraError if the file is missing or has no markers, or a table has no records.
    """
    try:
        before = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ElectraError(f"{file} is not there: name the file whose tables are to be written") from None
    if not _BLOCK.search(before):
        raise ElectraError(
            f"{file} has no markers: write <!-- bench encoder --> and <!-- /bench --> on lines of their own"
        )
    after = render(before, records)
    if after != before:
        write_text(file, after)
    return after != before
