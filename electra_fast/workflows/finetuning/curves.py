"""The picture of a fine-tuning run: the loss and what it came to on held-out data, a line for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_fast.files import atomic_writer

_COLOURS = ("#4c78a8", "#d62f2f", "#3f8f4f", "#e08a1e", "#8a5fb0")


def draw_curves(records: Sequence[dict[str, Any]], metric: str, path: Path) -> bool:
    """Draw metrics.jsonl as a PNG. Returns whether it was drawn: matplotlib is optional."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    loss, held_out = figure.subplots(1, 2)
    for axes, title in ((loss, "Training loss"), (held_out, f"Held out: {metric}")):
        axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
        axes.set_xlabel("epoch", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
    seeds = list(dict.fromkeys(record["seed"] for record in records))
    for number, seed in enumerate(seeds):
        colour = _COLOURS[number % len(_COLOURS)]
        for axes, split, name, marker in ((loss, "train", "loss", None), (held_out, "dev", metric, "o")):
            points = [(r["epoch"], r[name]) for r in records if (r["seed"], r["split"]) == (seed, split)]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=f"seed {seed}")
    if len(seeds) > 1:
        held_out.legend(fontsize=8, frameon=False)
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=120)
    return True
