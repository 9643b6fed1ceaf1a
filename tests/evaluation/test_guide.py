"""docs/evaluation.md: its options exist, and its tables name what there is."""

import re
from pathlib import Path

from electra_fast.cli.evaluate import evaluate
from electra_fast.cli.explain import explain
from electra_fast.cli.mistakes import flags
from electra_fast.workflows.evaluation import results
from electra_fast.workflows.explanation import run
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.finetuning.task import TASKS

GUIDE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_its_options_are_options():
    named = set(re.findall(r"(--[a-z][a-z-]+)", GUIDE))
    known = {*flags(evaluate).values(), *flags(explain).values(), "--no-attention"}
    known |= {f"--{name.replace('_', '-')}" for name in FinetuneOptions.__dataclass_fields__}
    assert len(named) > 10
    assert named <= known


def test_its_tables_name_every_task_and_file():
    for task in TASKS:
        assert re.search(rf"^\| {task}\b", GUIDE, re.MULTILINE)
    for name in (value for key, value in vars(results).items() if key.endswith("_NAME")):
        assert f"`{name}`" in GUIDE
    assert f"more than {run.MOST_DRAWN} tokens" in GUIDE
