"""The page about a run: what was trained, how it went, what it cost, and in words whether it learned.

One HTML file that needs nothing beside it, made from what the run has written, so at any time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from electra_fast import page
from electra_fast.files import write_text
from electra_fast.models import ElectraConfig

from .config_file import read_config
from .curves import curves_svg
from .display import clock
from .layout import CONFIG_NAME, REPORT_NAME, SUMMARY_NAME
from .options import PretrainOptions
from .status import RunStatus, run_status

_FIGURES = (
    ("loss", "Loss, both networks", "{:.3f}"),
    ("generator_loss", "Generator's loss (nats)", "{:.3f}"),
    ("sampled_accuracy", "Samples that are the original token", "{:.1%}"),
    ("discriminator_loss", "Discriminator's loss (nats)", "{:.4f}"),
    ("entropy", "Entropy of the fake rate: the loss of chance", "{:.4f}"),
    ("loss_minus_entropy", "Discriminator's loss less that", "{:+.4f}"),
    ("auc", "AUC", "{:.3f}"),
    ("precision", "Precision", "{:.3f}"),
    ("recall", "Recall", "{:.3f}"),
    ("fake_rate", "Fake tokens", "{:.1%}"),
    ("padding", "Padding", "{:.2%}"),
    ("gradient_norm", "Norm of the gradients before clipping", "{:.2f}"),
)
_NEVER_DEFAULT = ("data", "output", "threads")  # shown whatever their values are


def write_report(output: str | Path, hourly_price: float | None = None) -> Path:
    """Write ``report.html`` into the run's directory; returns its path.

    Args:
        output: of a run, whatever its state.
        hourly_price: of the machine, in whatever currency; multiplied by the hours of training.

    Raises: CheckpointError if there is no run.
    """
    found = run_status(output)
    path = found.output / REPORT_NAME
    write_text(path, report(found, hourly_price))
    return path


def report(found: RunStatus, hourly_price: float | None = None) -> str:
    """The page as text."""
    config = read_config(found.output / CONFIG_NAME)
    summary_file = found.output / SUMMARY_NAME
    summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {}
    parts = (
        f"<h1>{escape(found.output.name)}</h1>",
        f'<p class="state">{escape(_state(found, summary))}</p>',
        "<h2>Is the discriminator learning?</h2>",
        *(page.remark(text, good=index == 0) for index, text in enumerate(found.verdict)),
        "<h2>Figures</h2>",
        _figures(found),
        "<h2>Curves</h2>",
        _curves(found.records),
        "<h2>Time and cost</h2>",
        page.table(_cost(found, hourly_price)),
        "<h2>What was trained</h2>",
        _options(config),
        "<h2>Environment</h2>",
        page.table(_environment(found.output, summary)),
    )
    return page.document(f"electra-fast: {found.output.name}", parts)


def _state(found: RunStatus, summary: dict[str, Any]) -> str:
    parts = [found.state, f"step {found.step:,} of {found.total_steps:,}", f"{clock(found.seconds)} of training"]
    if "parameters" in summary:
        parts.append(f"{summary['parameters']:,} parameters")
    if found.state != "finished" and found.seconds_left is not None:
        parts.append(f"{clock(found.seconds_left)} left")
    return " · ".join(parts)


def _figures(found: RunStatus) -> str:
    """The newest ones of both splits."""
    newest = {record["split"]: record for record in found.records}
    splits = [(split, title) for split, title in (("validation", "held out"), ("train", "training")) if split in newest]
    if not splits:
        return page.note("None yet.")
    rows = []
    for name, title, form in _FIGURES:
        values = [newest[split].get(name) for split, _ in splits]
        if any(value is not None for value in values):
            rows.append([title, *("–" if value is None else form.format(value) for value in values)])
    heads = ["", *(f"{title}, step {newest[split]['step']:,}" for split, title in splits)]
    return page.table(rows, heads, numbers=True)


def _curves(records: Sequence[dict[str, Any]]) -> str:
    picture = curves_svg(records) if records else None
    if picture is None:
        reason = (
            "Nothing has been reported yet." if not records else "matplotlib is not installed: pip install matplotlib"
        )
        return page.note(reason)
    note = (
        "A discriminator that knows only how many tokens are fake has the loss of the dashed line and an AUC of 0.5. "
        "A solid line below the dashed one of its colour means that it finds them."
    )
    return picture + page.note(note)


def _cost(found: RunStatus, hourly_price: float | None) -> Iterable[tuple[str, str]]:
    """Sums over the reports: a report's rate holds for the seconds since the one before."""
    train = [record for record in found.records if record["split"] == "train"]
    begins = [0.0, *(record["seconds"] for record in train)]
    spans = [(record, record["seconds"] - begin) for record, begin in zip(train, begins, strict=False)]

    def total(name: str) -> float:
        return sum((record.get(name) or 0.0) * seconds for record, seconds in spans)

    yield "time in training steps", f"{clock(found.seconds)} ({found.seconds / 3600:.2f} hours)"
    if hourly_price is not None:
        yield f"cost at {hourly_price:g} an hour", f"{hourly_price * found.seconds / 3600:.2f}"
    tokens = total("tokens_per_second")
    if not tokens:
        return
    yield "tokens", f"{tokens:,.0f} ({tokens / found.step:,.0f} a step)"
    yield "speed", f"{tokens / found.seconds:,.0f} tokens/s, {found.step / found.seconds:,.2f} steps/s"
    if flops := 1e12 * total("tflops"):
        yield "operations of matrix products", f"{flops:.3g} ({flops / found.seconds / 1e12:.3g} TFLOP/s)"
    mfu = total("mfu") / found.seconds
    if mfu:
        yield "MFU (share of the measured peak)", f"{mfu:.1%}"
        yield "waiting for data", f"{total('data_wait') / found.seconds:.2%} of the time"
    if memory := [record["memory_mb"] for record in train if record.get("memory_mb")]:
        yield "peak memory", f"{max(memory):,.0f} MiB"


def _options(config: dict[str, Any]) -> str:
    """Those that are not as the size, or the option's default, has them."""
    defaults = {field.name: field.default for field in dataclasses.fields(PretrainOptions)}
    size = getattr(ElectraConfig, config["model"])()
    for part in (size, size.pretraining):
        defaults |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name in defaults}
    rows = [["model", config["model"], ""]]
    rows += [
        [name, value, "" if name in _NEVER_DEFAULT or defaults.get(name) is None else defaults[name]]
        for name, value in config.items()
        if name != "model" and (name in _NEVER_DEFAULT or not _same(value, defaults.get(name)))
    ]
    note = (
        f"All other options are those of the size, {config['model']}; {CONFIG_NAME} has every one, and repeats the run."
    )
    return page.table(rows, ["option", "this run", "default"]) + page.note(note)


def _same(value: Any, default: Any) -> bool:
    number = isinstance(value, int | float) and isinstance(default, int | float)
    return math.isclose(value, default) if number else value == default


def _environment(output: Path, summary: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What the run's configuration says about where it began, and its summary about where it ended."""
    lines = (output / CONFIG_NAME).read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda text: text.startswith("#"), lines)]
    begun = comment[0].removeprefix("Everything that this run of ").partition(" depends on.")[0] if comment else ""
    yield from (("begun with", begun),) if begun else ()
    yield from (("decided", reason) for reason in comment[1:])
    yield from ((name.replace("_", " "), value) for name, value in summary.get("environment", {}).items())
