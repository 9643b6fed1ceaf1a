"""What is recorded, and where it goes: the file, TensorBoard, Weights & Biases (offline)."""

import json
import math
import time
from pathlib import Path

import pytest

from electra_fast.errors import ConfigError
from electra_fast.workflows.pretraining import journal, loop, pretrain, resume, writers
from electra_fast.workflows.pretraining.journal import Journal, read_records


class Recorder:
    """A writer that remembers what it was told."""

    def __init__(self):
        self.told = []

    def write(self, record):
        self.told.append(record)

    def sync(self):
        self.told.append("sync")

    def close(self):
        self.told.append("close")


def test_it_drops_what_will_be_written_again_and_unfinished_lines(tmp_path):
    written = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        written.write({"step": step, "split": "train", "loss": math.nan if step == 2 else 1.0})
    written.sync()
    written.close()
    path = tmp_path / journal.METRICS_NAME
    path.write_text(path.read_text() + '{"step": 4, "spl')
    again = Journal(tmp_path, 2)
    assert again.last == {"train": {"step": 2, "split": "train", "loss": None}}
    again.close()
    assert [record["step"] for record in read_records(path)] == [1, 2]


def test_every_writer_is_told_the_same(tmp_path):
    other = Recorder()
    told = Journal(tmp_path, 0, [other])
    shown = told.write({"step": 1, "split": "validation", "auc": math.inf})
    told.sync()
    told.close()
    assert other.told == [shown, "sync", "close"]
    assert shown == {"step": 1, "split": "validation", "auc": None} == read_records(tmp_path / "metrics.jsonl")[0]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = writers.TensorBoardWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write({"step": step, "split": "train", "auc": 0.5 + step / 10, "recall": None})
    writer.close()
    again = writers.TensorBoardWriter(tmp_path, 2)  # the third step is going to come again
    again.write({"step": 3, "split": "train", "auc": 0.9})
    again.sync()
    again.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["auc/train"]
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("auc/train")] == [(1, 0.6), (2, 0.7), (3, 0.9)]


def _when_written(file: Path, last: bytes) -> bytes:
    """What a file of wandb's holds once ``last`` is in it: a process of wandb's own writes it, in its own time."""
    deadline = time.monotonic() + 30
    while last not in (content := file.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return content


def test_weights_and_biases_offline_through_a_resumed_run(tiny, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")  # whatever goes wrong, nothing is sent

    class Crash(Exception):
        pass

    taken = loop.training_step

    def wrapped(state):
        if state.step == 4:
            raise Crash
        return taken(state)

    monkeypatch.setattr(loop, "training_step", wrapped)
    options = tiny(total_steps=5, wandb="toys", wandb_mode="offline", eval_every=0)
    with pytest.raises(Crash):
        pretrain(options)
    monkeypatch.setattr(loop, "training_step", taken)
    resume(options.output_path)
    files = sorted(options.output_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2  # before the crash, and after
    assert len({file.name for file in files}) == 1  # the name is the run's id
    losses = {
        r["step"]: r["loss"] for r in read_records(options.output_path / "metrics.jsonl") if r["split"] == "train"
    }
    first, second = (_when_written(file, json.dumps(losses[4]).encode()) for file in files)
    for content, steps in ((first, (1, 2, 3, 4)), (second, (4, 5))):  # the last checkpoint is of step 3
        assert b"toys" in content
        assert b"hidden_size" in content
        assert [step for step in losses if json.dumps(losses[step]).encode() in content] == list(steps)
    assert b"validation/auc" in second


def test_weights_and_biases_that_is_not_there_is_said_before_anything_is_written(tiny, monkeypatch):
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb is not installed: pip install wandb, or leave out --wandb"):
        pretrain(tiny(wandb="toys"))
    assert not tiny().output_path.exists()


def test_weights_and_biases_without_an_account(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"Weights & Biases cannot be used: No API key.*wandb-mode offline"):
        writers.WandbWriter(tmp_path, "toys", "online", {})
