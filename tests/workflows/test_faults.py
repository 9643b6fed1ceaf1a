"""A run that is killed at random moments, again and again, ends with the bits of one that never was.

`--kills 50` kills as often as the project's own figure says; by default it is fewer, to be quick.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from electra_fast.workflows.pretraining import pretrain
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory

sys.path.insert(0, str(Path(__file__).parent))
import processes

STEPS_A_KILL = 16  # so that the run outlives all kills: at most 10 are waited for, and what passes until the signal
FREQUENT = {"log_every": 1, "eval_every": 25, "checkpoint_every": 1, "warmup_steps": 5, "keep": 2}


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


def length(path):
    try:
        return len(path.read_bytes().splitlines())
    except FileNotFoundError:
        return 0


def kill_somewhere(process, output, draw):
    """After a random number of reports and a random time, or as soon as a checkpoint is being written: kill -9."""
    reports = length(output / "metrics.jsonl") + draw.randint(0, 10)
    while length(output / "metrics.jsonl") < reports and process.is_alive():
        time.sleep(0.001)
    if draw.random() < 0.5:
        time.sleep(draw.random() * 0.05)
    else:
        while not unfinished(output) and process.is_alive():
            pass
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"


def unfinished(output):
    return list((output / "checkpoints").glob(".*.tmp"))


def test_killed_at_random_moments(tiny, tmp_path, kills, capsys):
    draw = random.Random(20)
    options = {**FREQUENT, "total_steps": STEPS_A_KILL * kills}
    killed, whole = tiny("killed", **options), tiny("whole", **options)
    log, inside = tmp_path / "log", 0
    for _ in range(kills):
        (process,) = processes.start(1, log, pretrain, killed, True)
        kill_somewhere(process, killed.output_path, draw)
        inside += bool(unfinished(killed.output_path))
    processes.run(1, log, pretrain, killed, True)
    processes.run(1, log, pretrain, whole)
    assert inside > 0, "no kill fell into the writing of a checkpoint"
    assert processes.figures(killed.output_path) == processes.figures(whole.output_path)
    ours, theirs = (CheckpointDirectory(run.output_path / "checkpoints").load_newest()[0] for run in (killed, whole))
    assert ours["step"] == theirs["step"] == options["total_steps"]
    assert_equal({name: ours[name] for name in ("model", "optimizer", "data", "metrics", "rng", "watch")}, theirs)
    assert not unfinished(killed.output_path)
    with capsys.disabled():
        print(f"\n{kills} kills, {inside} of them inside the writing of a checkpoint: equal to the last bit")


def assert_equal(ours, theirs):
    """Nested containers of tensors and plain values; ``theirs`` may have more keys at the top."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours.to_dense(), theirs.to_dense())
    elif isinstance(ours, dict):
        for name, value in ours.items():
            assert_equal(value, theirs[name])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a, b)
    else:
        assert ours == theirs


def test_clocks_that_jump_change_nothing(tiny, monkeypatch):
    """The time of day goes back and forth by years; only clocks that cannot are used for what a run does."""
    expected = pretrain(tiny("whole")).output
    draw = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(-1e9, 4e9))
    found = pretrain(tiny("jumps")).output
    assert processes.figures(found) == processes.figures(expected)
    seconds = [record["seconds"] for record in processes.records(found)]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 600
    assert [path.name for path in CheckpointDirectory(found / "checkpoints").files()] == [
        path.name for path in CheckpointDirectory(expected / "checkpoints").files()
    ]
    assert os.path.exists(found / "summary.json")
