"""What a run leaves behind: each seed's result, the best model, the summary over all seeds, and the curves."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from electra_fast.files import write_text
from electra_fast.workflows.evaluation.predictor import Predictor, encode
from electra_fast.workflows.pretraining.display import clock
from electra_fast.workflows.pretraining.finish import environment

from .curves import draw_curves
from .display import described
from .model_directory import BEST_NAME, load_task_file
from .preparation import Splits
from .train import Job, SeedResult, predict

RESULT_NAME = "result.json"
SUMMARY_NAME = "summary.json"
METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"
Records = list[dict[str, Any]]


def write_result(folder: Path, result: SeedResult, records: Records) -> tuple[SeedResult, Records]:
    """Note that a seed is done, and what came of it."""
    values = {**dataclasses.asdict(result), "records": records}
    write_text(folder / RESULT_NAME, json.dumps(values, indent=1) + "\n")
    return result, records


def read_result(folder: Path) -> tuple[SeedResult, Records] | None:
    """What `write_result` wrote, or None: the seed is not done."""
    try:
        values = json.loads((folder / RESULT_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    records = values.pop("records")
    return SeedResult(**values), records


def finish(
    output: Path,
    job: Job,
    splits: Splits,
    results: Sequence[SeedResult],
    records: Records,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write best/, metrics.jsonl, curves.png and, last, summary.json, which is returned; say what came of it."""
    best = max(results, key=lambda result: result.figures[job.metric])
    _copy(output / f"seed-{best.seed}" / BEST_NAME, output / BEST_NAME)
    summary = summarise(job, splits, results, best)
    if splits.test is not None:
        summary["test"] = _tested(output / BEST_NAME, job, splits)
    write_text(output / METRICS_NAME, "".join(json.dumps(record) + "\n" for record in records))
    if not draw_curves(records, job.metric, output / CURVES_NAME):
        say(f"no {CURVES_NAME}: matplotlib is not installed (pip install matplotlib)")
    write_text(output / SUMMARY_NAME, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    for line in told(summary):
        say(line)
    say(f"The best model, of seed {best.seed}, is in {output / BEST_NAME}; {output / CURVES_NAME} has the curves.")
    return summary


def summarise(job: Job, splits: Splits, results: Sequence[SeedResult], best: SeedResult) -> dict[str, Any]:
    """Median and spread of every figure over the seeds, each seed's own, the recipe and what it took."""
    names = results[0].figures
    per_epoch = [result.seconds_per_epoch for result in results if result.seconds_per_epoch is not None]
    return {
        "task": job.options.task,
        "metric": job.metric,
        "best_seed": best.seed,
        "figures": {name: spread([result.figures[name] for result in results]) for name in names},
        "seeds": [dataclasses.asdict(result) | {"seconds_per_epoch": result.seconds_per_epoch} for result in results],
        "seconds_per_epoch": statistics.median(per_epoch) if per_epoch else None,
        "train_seconds": sum(result.train_seconds for result in results),
        "recipe": job.recipe.to_dict(),
        "precision": job.precision,
        "backend": job.options.backend,
        "from_scratch": job.options.from_scratch,
        "rows": {name: len(split.examples) for name, split in splits.named().items()},
        "training_tokens": sum(job.lengths),
        "hygiene": {name: split.report.to_dict() for name, split in splits.named().items()},
        "environment": {**environment(job.device), "transformers": import_module("transformers").__version__},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """median, min, max, and the standard deviation (of a sample; 0 of one value)."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def told(summary: dict[str, Any]) -> list[str]:
    """The summary in lines."""
    seeds = len(summary["seeds"])
    of = f"median of {seeds} seeds (lowest to highest)" if seeds > 1 else f"seed {summary['best_seed']}"
    lines = [f"On {summary['rows']['dev']:,} held-out rows, {of}:"]
    for name, value in summary["figures"].items():
        between = f"  ({value['min']:.4f} to {value['max']:.4f})" if seeds > 1 else ""
        lines.append(f"  {name:<16}{value['median']:.4f}{between}")
    if "test" in summary:
        lines.append(f"On {summary['rows']['test']:,} test rows, the best model: {described(summary['test'])}")
    epoch = summary["seconds_per_epoch"]
    took = f"{clock(summary['train_seconds'])} of training in {summary['precision']}"
    lines.append(took + (f", {epoch:.1f} s an epoch" if epoch is not None else ""))
    return lines


def _copy(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of a directory; it is never there in part."""
    made = target.with_name(f".{target.name}.tmp")
    for old in (made, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, made)
    made.rename(target)


def _tested(model: Path, job: Job, splits: Splits) -> dict[str, float]:
    """Figures of the best model on the test data, in the precision of training."""
    task, _, _ = load_task_file(model)
    network = task.load(model).to(job.device)
    in_bf16 = job.precision == "bf16"
    predictor = Predictor(task, network, job.tokenizer, job.policy, precision=job.precision, autocast=in_bf16)
    encoded = encode(task, job.tokenizer, splits.test.examples[:])
    return task.score(predict(predictor, encoded), encoded.examples)
