"""One self-contained page: what is faster, by how much, and where not, in ten seconds; every figure below it."""

from __future__ import annotations

import html
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from electra_fast.files import write_text

from .records import MEASURED, Records, Row
from .summary import Summary, by_case, geometric_mean, milliseconds, summaries

NAME = "report.html"
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1c1f}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.2rem;border-bottom:1px solid #ddd}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
.verdict{font-size:1.25rem;margin:.8rem 0}.verdict b{color:#0b6e4f}.verdict b.slow{color:#b3261e}
table{border-collapse:collapse;font-size:13px}td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #eee}
td{white-space:nowrap}td:first-child,th:first-child,td.text{text-align:left;white-space:normal}
tr.ours{background:#e9f5f0;font-weight:600}tr.not{color:#888}
td.fast{color:#0b6e4f;font-weight:600}td.slow{color:#b3261e;font-weight:600}
.bar{display:inline-block;height:.7em;background:#0b6e4f;vertical-align:middle}.bar.slow{background:#b3261e}
.note{color:#555;font-size:13px}img{max-width:100%}details{margin:.3rem 0}
"""


def write(records: Records, folder: Path) -> Path:
    """Write ``folder``/report.html and, where matplotlib is installed, ``folder``/plots/*.png; returns the page."""
    rows = records.latest()
    found = summaries(rows)
    runs = {name: facts for name, facts in records.runs.items() if any(row.run == name for row in rows)}
    body = [_verdict(found), _by_suite(found), _machines(runs), _plots(found, rows, runs, folder), _absent(rows)]
    for suite in dict.fromkeys(row.suite for row in rows):
        body.append(f"<h2 id='{suite}'>{suite}</h2>")
        body += [_case(group) for key, group in by_case(rows).items() if key[0] == suite]
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>electra-fast: benchmarks</title><style>{_STYLE}</style><h1>electra-fast: benchmarks</h1>"
        + "\n".join(body)
        + "</html>\n"
    )
    write_text(folder / NAME, page)
    return folder / NAME


def _verdict(found: list[Summary]) -> str:
    if not found:
        return "<p class='verdict'>Nothing was measured on both sides yet.</p>"
    faster = [s for s in found if s.speedup >= 1]
    slower = [s for s in found if s.speedup < 1]
    mean, first = (geometric_mean([f(s) for s in found]) for f in (_over_best, _over_first))
    text = (
        f"<p class='verdict'>Faster than the best of all peers in <b>{len(faster)} of {len(found)}</b> cases: "
        f"<b>{mean:.2f}×</b> in the geometric mean over all of them, {first:.2f}× over the usual way.</p>"
    )
    if slower:
        items = ", ".join(f"{html.escape(s.ours.suite)} {html.escape(s.ours.case)} ({s.speedup:.2f}×)" for s in slower)
        text += f"<p class='verdict'>Slower in <b class='slow'>{len(slower)}</b>: {items}.</p>"
    return text


def _over_best(summary: Summary) -> float:
    return summary.speedup


def _over_first(summary: Summary) -> float:
    return summary.speedup_over_first


def _by_suite(found: list[Summary]) -> str:
    """A line a suite, with bars: the ten seconds."""
    lines = []
    most = max((s.speedup for s in found), default=1.0)
    for suite in dict.fromkeys(s.ours.suite for s in found):
        own = [s for s in found if s.ours.suite == suite]
        mean, low, high = geometric_mean([s.speedup for s in own]), min(own, key=_over_best), max(own, key=_over_best)
        memory = [s.memory_ratio for s in own if s.memory_ratio is not None]
        kind = "slow" if mean < 1 else "fast"
        lines.append(
            f"<tr><td><a href='#{suite}'>{suite}</a></td><td>{len(own)}</td><td class='{kind}'>{mean:.2f}×</td>"
            f"<td class='text'><span class='bar {kind}' style='width:{min(30.0, 30 * mean / most):.1f}rem'></span></td>"
            f"<td>{low.speedup:.2f}× – {high.speedup:.2f}×</td>"
            f"<td>{geometric_mean([s.speedup_over_first for s in own]):.2f}×</td>"
            f"<td>{f'{geometric_mean(memory):.2f}×' if memory else ''}</td></tr>"
        )
    if not lines:
        return ""
    head = "<tr><th>suite</th><th>cases</th><th>over the best peer</th><th></th><th>from – to</th>"
    head += "<th>over the usual way</th><th>peak memory, of the leanest peer's</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _machines(runs: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, facts in runs.items():
        roof = facts.get("roof", {})
        matrix = ", ".join(
            f"{dtype} {value:,.0f} GFLOP/s ({html.escape(roof.get('how', {}).get(dtype, ''))})"
            for dtype, value in roof.get("matrix", {}).items()
        )
        versions = ", ".join(f"{package} {version}" for package, version in facts.get("versions", {}).items())
        clock, load = facts.get("clock_mhz", 0), facts.get("load_average", 0)
        lines.append(
            f"<li>{html.escape(facts.get('device', '?'))}, {facts.get('cores')} cores, {facts.get('threads')} threads, "
            f"{html.escape(facts.get('capability', ''))}, {clock:.0f} MHz, load {load:.1f} before; "
            f"{facts.get('date', '')}, commit {facts.get('commit') or 'unknown'}, run {name}<br>"
            f"roof: copy {roof.get('copy', 0):.1f} GB/s; {matrix}<br>{html.escape(versions)}</li>"
        )
    return f"<details><summary>Machine, versions, roof</summary><ul class='note'>{''.join(lines)}</ul></details>"


def _plots(found: list[Summary], rows: list[Row], runs: dict[str, dict[str, Any]], folder: Path) -> str:
    if not rows:
        return ""
    if find_spec("matplotlib") is None:
        return "<p class='note'>No plots: matplotlib is not installed (pip install 'electra-fast[bench]').</p>"
    from . import figures

    (folder / "plots").mkdir(parents=True, exist_ok=True)
    parts = []
    for name, title, figure in figures.figures(found, rows, {n: r for n, r in runs.items() if r.get("roof")}):
        figures.save_png(figure, folder / "plots" / f"{name}.png")
        parts.append(f"<h3>{html.escape(title)}</h3><img alt='{html.escape(title)}' src='{figures.svg(figure)}'>")
    return "<h2>Plots</h2>" + "".join(parts)


def _absent(rows: list[Row]) -> str:
    """Peers without a figure, once each with the reason."""
    missing: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row.status != MEASURED:
            key = (row.contender, row.status, row.reason)
            missing[key] = missing.get(key, 0) + 1
    if not missing:
        return ""
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='text'>{status}</td><td class='text'>{html.escape(reason)}</td>"
        f"<td>{count}</td></tr>"
        for (name, status, reason), count in missing.items()
    )
    head = "<tr><th>contender</th><th>status</th><th>reason</th><th>cases</th></tr>"
    return f"<h2>Without a figure</h2><table>{head}{lines}</table>"


def _case(group: list[Row]) -> str:
    ours = min((row.median_ms for row in group if row.ours and row.status == MEASURED), default=0.0)
    lines = []
    for row in group:
        name = f"<td title='{html.escape(row.setting, quote=True)}'>{html.escape(row.contender)}</td>"
        if row.status != MEASURED:
            lines.append(
                f"<tr class='not'>{name}<td class='text' colspan='7'>{row.status}: {html.escape(row.reason)}</td></tr>"
            )
            continue
        ratio = row.median_ms / ours if ours and not row.ours else 0.0
        rate = f"{row.gflops:,.0f} GFLOP/s" if row.bound == "matrix" else f"{row.gbytes:.1f} GB/s" if row.bound else ""
        cells = (
            milliseconds(row.median_ms),
            f"{milliseconds(row.q20_ms)} – {milliseconds(row.q80_ms)}",
            rate,
            f"{row.share:.0%}" if row.share else "",
            f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "",
            f"{row.peak_memory_mib:,.0f}" if row.peak_memory_mib is not None else "",
            f"{row.error:.1e}" if row.error else "",
        )
        kind = "fast" if ratio >= 1 else "slow"
        last = f"<td class='{kind}'>{ratio:.2f}×</td>" if ratio else "<td></td>"
        values = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr{' class=ours' if row.ours else ''}>{name}{values}{last}</tr>")
    head = "".join(f"<th>{text}</th>" for text in (
        "", "median, ms", "20 % – 80 %", "rate", "of roof", "tokens/s", "peak MiB", "error", "of our time",
    ))  # fmt: skip
    title = html.escape(f"{group[0].case} on {group[0].device}")
    return f"<h3>{title}</h3><table><tr>{head}</tr>{''.join(lines)}</table>"
