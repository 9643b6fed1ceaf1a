"""The end of a run: the trained networks, the picture of the curves, a summary, a page, and a verdict in words."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch

import electra_fast
from electra_fast.data.manifest import Corpus
from electra_fast.diagnostics import processor
from electra_fast.files import write_text
from electra_fast.models import ElectraPretrainingPair

from .curves import draw_curves
from .display import clock, verdict
from .journal import Journal, read_records
from .layout import CURVES_NAME, METRICS_NAME, MODEL_NAME, SUMMARY_NAME
from .parallel import whole_pair
from .report import write_report
from .step import TrainingState


def finish(
    output: Path, state: TrainingState, corpus: Corpus, journal: Journal, seconds: float, say: Callable[[str], None]
) -> None:
    """Write ``model/``, ``curves.png``, ``summary.json`` and ``report.html``, and say what was learned; a call of all
    processes."""
    pair = whole_pair(state.pair)
    state.ranks.agree(lambda: _write(output, pair, state, corpus, journal, seconds, say))


def _write(
    output: Path,
    pair: ElectraPretrainingPair,
    state: TrainingState,
    corpus: Corpus,
    journal: Journal,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    pair.save_pretrained(output / MODEL_NAME, corpus.directory)
    journal.sync()
    if not draw_curves(read_records(output / METRICS_NAME), output / CURVES_NAME):
        say(f"no {CURVES_NAME}: matplotlib is not installed (pip install matplotlib)")
    last = journal.last
    figures = last.get("validation") or last["train"]
    parameters = sum(p.numel() for p in pair.parameters())
    summary = {
        "steps": state.step,
        "seconds": seconds,
        "parameters": parameters,
        "tokens_per_second": last["train"]["tokens_per_second"],
        "environment": environment(state.device),
        "verdict": verdict(figures),
        "train": last["train"],
        "validation": last.get("validation"),
    }
    write_text(output / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    page = write_report(output)
    where = "held-out text" if "validation" in last else "training text (there is none held out)"
    say(f"{state.step:,} steps in {clock(seconds)}, {parameters:,} parameters. On {where}:")
    say(verdict(figures))
    say(f"The networks are in {output / MODEL_NAME}, as Hugging Face directories; {page} has the curves.")


def environment(device: torch.device) -> dict[str, str]:
    """Where a run ended: versions and hardware."""
    return {
        "electra_fast": electra_fast.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": str(torch.get_num_threads()),
    }
