"""A real pretraining run with curves, and its control: from text to report.html, a quarter of an hour of training each.

    python benchmarks/real_run.py --text 'novels/*.txt' --out build/real-run                  # small, on a GPU
    python benchmarks/real_run.py --text 'novels/*.txt' --out build/real-run --device cpu --minutes 30 --config c.toml

The control takes as many steps with replacements drawn uniformly instead of by the generator (``--no-control`` leaves
it out). Uniform replacements are easier to find, so that each run's own AUC cannot be compared: at the end both
discriminators judge the same held-out text, once with the generator's replacements and once with uniform ones. The
corpus is kept in OUT/corpus. A run that was interrupted goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import glob
import json
from pathlib import Path
from typing import Any

from electra_fast.data import PrepareOptions, prepare
from electra_fast.data.manifest import open_corpus
from electra_fast.models import ElectraForMaskedLM, ElectraForPreTraining, ElectraPretrainingPair
from electra_fast.workflows.pretraining import PretrainOptions, pretrain, resume
from electra_fast.workflows.pretraining.build import resolve
from electra_fast.workflows.pretraining.config_file import read_config
from electra_fast.workflows.pretraining.evaluate import Evaluation
from electra_fast.workflows.pretraining.layout import CONFIG_NAME, SUMMARY_NAME

SHOWN = ("auc", "discriminator_loss", "entropy", "loss_minus_entropy", "recall", "generator_loss", "fake_rate")
SPEED = ("tokens_per_second", "mfu", "data_wait")
JUDGED = ("auc", "loss_minus_entropy", "recall", "precision", "fake_rate")
JUDGED_TOKENS, JUDGED_BATCHES = 4096, 25


def run(options: dict[str, Any]) -> dict[str, Any]:
    """Begin or go on, and give what summary.json says."""
    output = Path(options["output"])
    if not (output / SUMMARY_NAME).exists():
        stopped = resume(output) if (output / CONFIG_NAME).exists() else pretrain(PretrainOptions(**options))
        if stopped.signal is not None:
            raise SystemExit(128 + stopped.signal)
    return json.loads((output / SUMMARY_NAME).read_text(encoding="utf-8"))


def show(name: str, summary: dict[str, Any]) -> None:
    figures, train = summary["validation"] or summary["train"], summary["train"]
    print(f"{name}: {summary['steps']:,} steps in {summary['seconds'] / 60:.1f} minutes")
    shown = [(key, figures.get(key)) for key in SHOWN] + [(key, train.get(key)) for key in SPEED]
    print("  " + "  ".join(f"{key} {value:.4g}" for key, value in shown if value is not None))


def judge(corpus: Path, electra: Path, control: Path) -> None:
    """Both discriminators on the same held-out text, masks and replacements, without dropout, in float32."""
    opened = open_corpus(corpus)
    config = resolve(PretrainOptions.from_mapping(read_config(electra / CONFIG_NAME)), opened.manifest)
    generator = ElectraForMaskedLM.from_pretrained(electra / "model" / "generator")
    evaluation = Evaluation(opened, JUDGED_TOKENS, JUDGED_BATCHES)
    for replacements, uniform in (("the generator's", False), ("uniform", True)):
        pair = ElectraPretrainingPair(config.replace(embedding_sharing="none", uniform_generator=uniform))
        if not uniform:
            pair.generator.load_state_dict(generator.state_dict())
        for name, run in (("ELECTRA", electra), ("control", control)):
            trained = ElectraForPreTraining.from_pretrained(run / "model" / "discriminator")
            pair.discriminator.load_state_dict(trained.state_dict())
            show_figures(f"{name} on {replacements} replacements", evaluation.run(pair))


def show_figures(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: " + "  ".join(f"{key} {figures[key]:.4g}" for key in JUDGED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="pattern of text files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--config", type=Path, help="TOML file of options of pretrain")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--no-control", dest="control", action="store_false")
    given = parser.parse_args()
    corpus = given.out / "corpus"
    files = sorted(glob.glob(given.text, recursive=True))
    prepare(PrepareOptions(files, corpus, vocab_size=given.vocab_size, max_length=128, validation_fraction=0.02))
    options = {} if given.config is None else read_config(given.config)
    options |= {"data": corpus, "device": given.device}
    electra = given.out / "electra"
    length = {"max_time": f"{given.minutes}m"} if given.steps is None else {"total_steps": given.steps}
    show("ELECTRA", run(options | length | {"output": electra}))
    if given.control:
        steps = read_config(electra / CONFIG_NAME)["total_steps"]
        control = {"output": given.out / "uniform", "total_steps": steps, "uniform_generator": True}
        show("control, uniform replacements", run(options | control))
        judge(corpus, electra, given.out / "uniform")


if __name__ == "__main__":
    main()
