"""Plots of records: speed-ups, the roofline, and how each contender scales with length, batch and tokens."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from electra_fast.files import atomic_writer

from .records import MEASURED, Row
from .summary import Summary

OURS, PEER, SLOWER = "#0b6e4f", "#8a8f98", "#b3261e"
_AXES = ("length", "batch", "tokens", "slots", "columns", "rows")
_SECONDARY = ("tokens",)  # grows with the others, so that a series may change in it


def figures(summaries: list[Summary], rows: list[Row], roof: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(file name, title, matplotlib figure), most telling first."""
    if summaries:
        yield "speedup", "Speed-up over the best peer", _speedup(summaries)
    if roof:
        yield "roofline", "Share of the roof measured in the same run", _roofline(rows)
    for name, axis, title, series in scaling(rows):
        yield f"scaling-{name}", title, _scaling(series, axis)


def svg(figure: Any) -> str:
    """The figure as an element of a page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def save_png(figure: Any, file: Path) -> None:
    """The figure as a file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, bbox_inches="tight")
    with atomic_writer(file) as out:
        out.write(stream.getvalue())


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: it would keep every figure, and look for a display

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _speedup(summaries: list[Summary]) -> Any:
    ordered = sorted(summaries, key=lambda s: s.speedup)
    figure, axes = _figure(9, 0.8 + 0.24 * len(ordered))
    names = [f"{s.ours.suite}: {s.ours.case}" for s in ordered]
    values = [s.speedup for s in ordered]
    colors = [OURS if value >= 1 else SLOWER for value in values]
    axes.barh(names, [value - 1 for value in values], left=1, color=colors, height=0.7)
    for index, s in enumerate(ordered):
        axes.annotate(
            f" {s.speedup:.2f}× ({s.peer.contender})",
            (max(s.speedup, 1), index),
            va="center",
            fontsize=7,
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5×", "1×", "2×", "4×", "8×"])
    axes.set_xlim(min(0.5, *values) * 0.9, max(2.0, *values) * 2.2)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    return figure


def _roofline(rows: list[Row]) -> Any:
    """Share of the roof over time a call: ours and the best of the others."""
    figure, axes = _figure(8, 4.2)
    shown = [row for row in rows if row.status == MEASURED and row.share > 0]
    for ours, color, label in ((False, PEER, "peers"), (True, OURS, "electra-fast")):
        for bound, marker in (("matrix", "o"), ("copy", "s")):
            chosen = [row for row in shown if row.ours == ours and row.bound == bound]
            name = f"{label}, {'products' if bound == 'matrix' else 'memory-bound'}"
            times = [row.median_ms for row in chosen]
            axes.scatter(times, [100 * r.share for r in chosen], c=color, marker=marker, s=22, label=name, alpha=0.8)
    axes.axhline(100, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(0, max([110, *(100 * row.share + 5 for row in shown)]))
    axes.set_xlabel("milliseconds a call")
    axes.set_ylabel("% of the measured roof")
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def scaling(rows: list[Row]) -> Iterator[tuple[str, str, str, dict[str, list[tuple[float, Row]]]]]:
    """(name, axis, title, points by contender) for every set of cases that differ in one number alone."""
    for axis in _AXES:
        groups: dict[tuple, dict[str, list[tuple[float, Row]]]] = {}
        for row in rows:
            if row.status != MEASURED or (value := _number(row.shape.get(axis))) is None:
                continue
            others = {k: v for k, v in row.shape.items() if k != axis and k not in _SECONDARY}
            key = (row.suite, row.dtype, row.device, *sorted((k, str(v)) for k, v in others.items()))
            groups.setdefault(key, {}).setdefault(row.contender, []).append((value, row))
        for key, series in groups.items():
            series = {name: sorted(points, key=_first) for name, points in series.items()}
            if max(len({value for value, _ in points}) for points in series.values()) < 3:
                continue
            fixed = ", ".join(f"{k} {v}" for k, v in key[3:])
            name = "-".join([key[0], axis, key[1], key[2], *(v for _, v in key[3:])])
            safe = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
            yield safe, axis, f"{key[0]}, {key[1]}: over {axis} ({fixed})", series


def _first(point: tuple[float, Row]) -> float:
    return point[0]


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _scaling(series: dict[str, list[tuple[float, Row]]], axis: str) -> Any:
    figure, axes = _figure(6, 3.6)
    rate = _rate(series)
    for name, points in series.items():
        ours = points[0][1].ours
        style = {"color": OURS, "linewidth": 2.4} if ours else {"linewidth": 1.2, "alpha": 0.8}
        axes.plot([x for x, _ in points], [rate(row) for _, row in points], marker="o", ms=4, label=name, **style)
    axes.set_xscale("log", base=2)
    ticks = sorted({x for points in series.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(axis)
    axes.set_ylabel("tokens/s")
    axes.legend(fontsize=7, frameon=False)
    return figure


def _rate(series: dict[str, list[tuple[float, Row]]]) -> Callable[[Row], float]:
    return lambda row: row.tokens_per_second
