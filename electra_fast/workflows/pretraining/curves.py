"""The picture of a run: how the two networks did over time, on training and on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_fast.files import atomic_writer

_COLOURS = {"train": "#4c78a8", "validation": "#e45756"}
_LABELS = {"train": "training", "validation": "held out"}


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw generator loss, discriminator loss beside the entropy of its fake rate, AUC and fake rate as a PNG.

    Returns whether it was drawn: matplotlib is optional.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 7), layout="constrained")
    (generator, discriminator), (auc, fake) = figure.subplots(2, 2)
    _draw(generator, records, "generator_loss", "Generator: masked-token loss (nats)")
    _draw(discriminator, records, "discriminator_loss", "Discriminator: loss (nats)")
    for split in _COLOURS:
        steps, values = _series(records, split, "entropy")
        if steps:
            label = f"entropy of the fake rate, {_LABELS[split]}"
            discriminator.plot(steps, values, "--", linewidth=1, color=_COLOURS[split], alpha=0.7, label=label)
    _draw(auc, records, "auc", "Discriminator: area under the ROC curve")
    auc.axhline(0.5, linestyle="--", linewidth=1, color="grey")
    _draw(fake, records, "fake_rate", "Share of fake tokens")
    for axes in (generator, discriminator, auc, fake):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=120)
    return True


def _draw(axes: Any, records: Sequence[dict[str, Any]], name: str, title: str) -> None:
    for split, colour in _COLOURS.items():
        steps, values = _series(records, split, name)
        if steps:
            marker = "o" if split == "validation" else None
            axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker, markersize=3, label=_LABELS[split])
    axes.set_title(title, fontsize=10)


def _series(records: Sequence[dict[str, Any]], split: str, name: str) -> tuple[list[int], list[float]]:
    points = [(r["step"], r[name]) for r in records if r["split"] == split and r.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]
