"""The state of a run, while it runs, when it was stopped, and when it is done."""

from __future__ import annotations

import json
import math

import pytest

from electra_fast.data.job import open_directory
from electra_fast.errors import CheckpointError
from electra_fast.workflows.pretraining import run_status
from electra_fast.workflows.pretraining.status import sparkline


def record(step: int, split: str = "train", **figures) -> dict:
    usual = {
        "step": step, "split": split, "seconds": 2.0 * step, "tokens_per_second": 1000.0, "generator_loss": 6.0,
        "discriminator_loss": 0.30, "entropy": 0.39, "loss_minus_entropy": -0.09, "auc": 0.8, "fake_rate": 0.13,
    }  # fmt: skip
    return usual | figures


@pytest.fixture
def run(tmp_path):
    """Write a run of 100 planned steps with these records and return its directory."""

    def write(*records: dict, total: int = 100):
        (tmp_path / "config.toml").write_text(f'data = "d"\noutput = "o"\ntotal_steps = {total}\n')
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        return tmp_path

    return write


def test_a_stopped_run(run):
    folder = run(record(10), record(20, auc=0.9), record(20, "validation", auc=0.7))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000015.pt").touch()
    found = run_status(folder)
    assert (found.state, found.step, found.total_steps, found.checkpoint) == ("stopped", 20, 100, 15)
    assert (found.seconds, found.seconds_left) == (40.0, 160.0)
    assert found.series("train", "auc") == [0.8, 0.9]
    assert found.last("validation", "auc") == 0.7
    assert 0 <= found.reported < 60
    assert found.verdict[0].startswith("The discriminator is learning: its loss is 0.300")
    assert "AUC is 0.700" in found.verdict[0]
    assert len(found.verdict) == 1


def test_a_running_run(run):
    folder = run(record(10))
    with open_directory(folder):
        assert run_status(folder).state == "running"
    assert run_status(folder).state == "stopped"


def test_a_finished_run(run):
    folder = run(record(100))
    (folder / "summary.json").write_text("{}")
    found = run_status(folder)
    assert (found.state, found.seconds_left) == ("finished", 0.0)


def test_a_run_that_has_reported_nothing(run):
    found = run_status(run())
    assert (found.step, found.seconds_left, found.checkpoint) == (0, None, None)
    assert math.isnan(found.reported)
    assert found.verdict == ("Nothing has been reported yet.",)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record(10, auc=0.5, discriminator_loss=0.39)], "The discriminator is not learning yet"),
        ([record(10, fake_rate=0.03)], "Only 3.0% of the tokens are fake: the generator is so good"),
        ([record(10, data_wait=0.25)], "25% of the time is spent waiting for data"),
        ([record(10), record(10, "validation", discriminator_loss=0.36)], "begins to know the corpus by heart"),
    ],
)
def test_what_stands_out_is_said(run, records, said):
    assert any(said in remark for remark in run_status(run(*records)).verdict)


def test_a_line_that_a_kill_cut_off_is_left_out(run):
    folder = run(record(10))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "spl')
    assert run_status(folder).step == 10


def test_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no run in .*: give the --output of electra-fast pretrain"):
        run_status(tmp_path)


def test_sparkline():
    assert sparkline([]) == ""
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([5.0, 5.0]) == "▄▄"
    assert sparkline([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([0.0, 1.0] * 100, 40)) == 40
