"""Objectives train on two processes as on one that accumulates: no parameter is left without a gradient."""

import json
import sys
from pathlib import Path

import pytest

from electra_fast.workflows.pretraining import pretrain

sys.path.insert(0, str(Path(__file__).parent))
import processes

SHORT = {"total_steps": 3, "warmup_steps": 1, "eval_every": 0, "checkpoint_every": 100}


@pytest.mark.parametrize(
    ("parallel", "changes"),
    [
        ("fsdp", {"embedding_sharing": "gdes", "masking": "word"}),
        ("fsdp", {"embedding_sharing": "none", "freeze_generator": True, "temperature_schedule": "exponential"}),
        ("ddp", {"objective": "electric", "embedding_sharing": "gdes"}),
    ],
    ids=["gdes", "frozen", "electric"],
)
def test_two_processes_train_as_one(tiny, tmp_path, parallel, changes):
    assert_same(tiny, tmp_path, parallel, changes)
    for output in ("of 1", "of 2"):
        saved = sorted(path.name for path in (tmp_path / output / "model").iterdir())
        assert saved == NETWORKS[changes.get("objective")]


def test_a_second_phase_on_two_processes(tiny, tmp_path):
    """Weights and moments of another run, of which each process takes its part."""
    processes.run(1, tmp_path / "log0", pretrain, tiny("first", total_steps=3))
    assert_same(tiny, tmp_path, "fsdp", {"init": tmp_path / "first", "init_moments": True})


def assert_same(tiny, tmp_path, parallel, changes):
    runs = []
    for size, accumulation in ((1, 2), (2, 1)):
        options = tiny(f"of {size}", accumulation=accumulation, parallel=parallel, **SHORT, **changes)
        processes.run(size, tmp_path / f"log{size}", pretrain, options)
        runs.append([json.loads(line) for line in (options.output_path / "metrics.jsonl").read_text().splitlines()])
    assert len(runs[0]) == 4
    for expected, found in zip(*runs, strict=True):
        for name in ("loss", "generator_loss"):
            assert found[name] == pytest.approx(expected[name], rel=1e-6)


NETWORKS = {None: ["discriminator", "generator"], "electric": ["discriminator"]}
