"""The picture of a run: how the two networks did over time, on training and on held-out text, and at what speed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_fast.files import atomic_writer

_SPLITS = {"train": "training", "validation": "held out"}
_OF_SPLIT = {"train": "#4c78a8", "validation": "#d62f2f"}
_OF_CURVE = ("#4c78a8", "#e08a1e", "#3f8f4f")
_MOST_POINTS = 400  # of a curve; longer ones are drawn through means


@dataclass(frozen=True)
class Panel:
    """One pair of axes: names of figures with what the legend calls them, a level worth a line, and the scale."""

    title: str
    curves: tuple[tuple[str, str], ...]
    level: float | None = None
    percent: bool = False
    from_zero: bool = False


PANELS = (
    Panel("Generator: masked-token loss (nats)", (("generator_loss", ""),)),
    Panel("Discriminator: loss (nats)", (("discriminator_loss", ""), ("entropy", "entropy of the fake rate, "))),
    Panel("Discriminator", (("auc", "AUC"), ("precision", "precision"), ("recall", "recall")), level=0.5),
    Panel("Generator", (("sampled_accuracy", "samples that are right"), ("fake_rate", "fake tokens")), percent=True),
    Panel("Learning rate", (("learning_rate", ""),), from_zero=True),
    Panel("Norm of the gradients before clipping", (("gradient_norm", ""),)),
    Panel("Tokens a second", (("tokens_per_second", ""),), from_zero=True),
    Panel("Time", (("mfu", "MFU"), ("data_wait", "waiting for data")), percent=True, from_zero=True),
)


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw `PANELS` as a PNG. Returns whether it was drawn: matplotlib is optional."""
    figure = _figure(records)
    if figure is None:
        return False
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=120)
    return True


def curves_svg(records: Sequence[dict[str, Any]]) -> str | None:
    """The same picture as an ``<svg>`` element, equal for equal records; None without matplotlib."""
    figure = _figure(records)
    if figure is None:
        return None
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "electra-fast"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _figure(records: Sequence[dict[str, Any]]) -> Any:
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        return None
    figure = Figure(figsize=(10, 12), layout="constrained")
    figure.get_layout_engine().set(hspace=0.04, wspace=0.04, w_pad=0.1)
    for index, (axes, panel) in enumerate(zip(figure.subplots(4, 2).flat, PANELS, strict=True)):
        axes.set_title(panel.title, fontsize=10, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        if panel.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if panel.level is not None:
            axes.axhline(panel.level, linestyle=":", linewidth=1, color="grey")
        if index >= len(PANELS) - 2:
            axes.set_xlabel("step", fontsize=9)
        _draw(axes, panel, records)
        if not axes.lines[panel.level is not None :]:
            axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", color="grey", fontsize=9)
        elif panel.from_zero:
            axes.set_ylim(bottom=0)
        if panel.curves[0][0] == "learning_rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=7, frameon=False)
    return figure


def _draw(axes: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    """One or two curves that belong together are told apart by the split, others by their names."""
    by_split = not all(label and not label.endswith(", ") for _, label in panel.curves)
    for number, (name, label) in enumerate(panel.curves):
        for split, where in _SPLITS.items():
            steps, values = _series(records, split, name)
            if not steps:
                continue
            held_out = split == "validation"
            color = _OF_SPLIT[split] if by_split else _OF_CURVE[number]
            style = "--" if by_split and number else "-"
            shown = label + where if by_split else f"{label}, {where}" if held_out else label
            marker = "o" if held_out or len(steps) == 1 else None
            axes.plot(steps, values, style, color=color, linewidth=1.2, marker=marker, markersize=2.5, label=shown)


def _series(records: Sequence[dict[str, Any]], split: str, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a figure; where there are many, means over equal numbers of them."""
    points = [(r["step"], r[name]) for r in records if r["split"] == split and r.get(name) is not None]
    count = min(len(points), _MOST_POINTS)
    groups = [points[len(points) * i // count : len(points) * (i + 1) // count] for i in range(count)]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [step for step, _ in means], [value for _, value in means]
