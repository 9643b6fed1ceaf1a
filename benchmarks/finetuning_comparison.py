"""What pretraining is worth on real tasks, and what our kernels are: the same recipe, three ways, several seeds.

    python benchmarks/finetuning_comparison.py --model RUN --tasks tasks.toml --out build/finetuning

For every task of the TOML file and every seed it fine-tunes the checkpoint (``pretrained``), the same architecture from
random weights (``random``), and the checkpoint through `transformers` alone (``transformers``: the same recipe, order
of rows and precision, its own kernels). Figures are those of the test data, which chooses nothing: the epoch is chosen
on ``dev``. A table of the file holds options of ``electra-fast finetune``; its paths are relative to the file:

    [movie_reviews]
    task = "classification"
    train = "movie_reviews/train.tsv"
    test = "movie_reviews/dev.tsv"
    epochs = 4

    [squad]
    task = "qa"
    train = "dev-v1.1.json"
    split_articles = 5      # no test file: every fifth article is one

What is done already is not done again. The table is printed, and kept in OUT/comparison.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from electra_fast.files import write_text
from electra_fast.workflows.finetuning import FinetuneOptions, finetune

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIANTS: dict[str, dict[str, Any]] = {
    "pretrained": {},
    "random": {"from_scratch": True},
    "transformers": {"backend": "transformers"},
}
FILES = ("train", "dev", "test")


def split_articles(path: Path, every: int, folder: Path) -> dict[str, Path]:
    """A SQuAD file as two: no paragraph of a test question is in training."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    articles = whole["data"]
    parts = {"train": [a for i, a in enumerate(articles) if i % every], "test": articles[::every]}
    found = {}
    for name, part in parts.items():
        found[name] = folder / f"{path.stem}.{name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(found[name], json.dumps({**whole, "data": part}))
    return found


def options_of(name: str, table: dict[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """The options of a task, its files found."""
    options = dict(table)
    for key in FILES:
        if key in options:
            options[key] = ",".join(str(folder / part.strip()) for part in options[key].split(","))
    every = options.pop("split_articles", None)
    if every is not None:
        options |= split_articles(Path(options["train"]), every, out / name)
    if "test" not in options:
        raise SystemExit(f"error: [{name}] needs test, a file that figures are taken on (or split_articles)")
    return options


def compare(options: dict[str, Any], variants: list[str], seeds: list[int], out: Path) -> list[dict[str, Any]]:
    """Fine-tune every variant with every seed; a row for each variant."""
    rows = []
    for variant in variants:
        figures, seconds, summary = [], [], {}
        for seed in seeds:
            chosen = {**options, **VARIANTS[variant], "seeds": str(seed), "output": out / variant / str(seed)}
            result = finetune(FinetuneOptions(**chosen), or_resume=True)
            if result.signal is not None:
                raise SystemExit(128 + result.signal)
            summary = result.summary
            figures.append(summary["test"][summary["metric"]])
            seconds.append(summary["seconds_per_epoch"])
        rows.append(
            {
                "variant": variant,
                "metric": summary["metric"],
                "median": statistics.median(figures),
                "by_seed": dict(zip(map(str, seeds), figures, strict=True)),
                "seconds_per_epoch": min(seconds),
                "precision": summary["precision"],
                "rows": summary["rows"],
                "environment": summary["environment"],
            }
        )
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        seeds = " ".join(f"{value:.4f}" for value in row["by_seed"].values())
        print(f"{name:<16}{row['variant']:<14}{row['metric']} {row['median']:.4f}  ({seeds})  "
              f"{row['seconds_per_epoch']:.1f} s an epoch in {row['precision']}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="pretraining run, or a Hugging Face ELECTRA directory")
    parser.add_argument("--tasks", type=Path, required=True, help="TOML file, a table a task")
    parser.add_argument("--only", help="tasks of that file, separated by commas")
    parser.add_argument("--variants", default="pretrained,random,transformers")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tables = tomllib.loads(given.tasks.read_text(encoding="utf-8"))
    names = given.only.split(",") if given.only else list(tables)
    variants, seeds = given.variants.split(","), [int(seed) for seed in given.seeds.split(",")]
    if unknown := [name for name in names if name not in tables] + [v for v in variants if v not in VARIANTS]:
        parser.error(f"unknown: {', '.join(unknown)}; tasks: {', '.join(tables)}; variants: {', '.join(VARIANTS)}")
    found = {}
    for name in names:
        options = {**options_of(name, tables[name], given.tasks.parent, given.out), "model": given.model}
        found[name] = compare(options, variants, seeds, given.out / name)
        show(name, found[name])
        write_text(given.out / "comparison.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
