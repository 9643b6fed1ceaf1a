"""Checkpoints of several processes, read by as many or another number of them; and one of them dying."""

import shutil
import signal
import sys
from pathlib import Path

import pytest

from electra_fast.errors import CheckpointError
from electra_fast.workflows.pretraining import pretrain, resume
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory, load_checkpoint
from electra_fast.workflows.pretraining.sharded import METADATA

sys.path.insert(0, str(Path(__file__).parent))
import processes

KILLED = {"accumulation": 1, "log_every": 2, "checkpoint_every": 3}  # in step 5: between two reports
SIGKILL = -signal.SIGKILL


def assert_nearly(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            counted = value is None or isinstance(value, str)
            assert value == (theirs[name] if counted else pytest.approx(theirs[name], rel=1e-5, abs=1e-9)), name


@pytest.fixture
def whole_and_killed(tiny, tmp_path):
    """``whole_and_killed(size, parallel)``: directories of a run and of the same run that was killed in step 5."""

    def make(size, parallel):
        log = tmp_path / "log"
        whole, killed = (tiny(name, parallel=parallel, **KILLED) for name in ("whole", "killed"))
        processes.run(size, log, pretrain, whole)
        codes = processes.finished(processes.start(size, log, processes.kill_in_step, killed, 5))
        assert codes == [SIGKILL] * size
        return whole.output_path, killed.output_path

    return make


def test_ddp_on_four_goes_on_to_the_last_bit(whole_and_killed, tmp_path):
    """More than two, so that the order of a sum can be another."""
    whole, killed = whole_and_killed(4, "ddp")
    processes.run(4, tmp_path / "log", resume, killed)
    assert processes.figures(killed) == processes.figures(whole)
    assert (killed / "model/discriminator/model.safetensors").read_bytes() == (
        whole / "model/discriminator/model.safetensors"
    ).read_bytes()


def test_parts_of_two_are_read_by_two_by_one_and_by_ddp(whole_and_killed, tmp_path):
    whole, killed = whole_and_killed(2, "fsdp")
    assert [path.name for path in CheckpointDirectory(killed / "checkpoints").files()] == ["step-00000003"]
    for name in ("alone", "replicas"):
        shutil.copytree(killed, tmp_path / name)
    processes.run(2, tmp_path / "log", resume, killed)
    assert processes.figures(killed) == processes.figures(whole)
    resume(tmp_path / "alone")
    assert_nearly(processes.figures(tmp_path / "alone"), processes.figures(whole))
    processes.run(2, tmp_path / "log", resume, tmp_path / "replicas", {"parallel": "ddp"})
    assert_nearly(processes.figures(tmp_path / "replicas"), processes.figures(whole))
    damaged_parts_are_passed_over(whole)


def test_a_checkpoint_of_one_is_read_in_parts_by_four(tiny, tmp_path):
    one = {**KILLED, "accumulation": 4}
    processes.run(1, tmp_path / "log", pretrain, tiny("whole", **one))
    killed = tiny("killed", **one)
    assert processes.finished(processes.start(1, tmp_path / "log", processes.kill_in_step, killed, 5)) == [SIGKILL]
    processes.run(4, tmp_path / "log", resume, killed.output_path, {"parallel": "zero"})
    assert_nearly(processes.figures(killed.output_path), processes.figures(tiny("whole").output_path))
    assert "1 processes wrote the checkpoint and 4 go on: losses will be equal up to" in (tmp_path / "log").read_text()


def damaged_parts_are_passed_over(run):
    directory = CheckpointDirectory(run / "checkpoints")
    files = directory.files()
    assert [path.name for path in files] == ["step-00000003", "step-00000006", "step-00000008"]
    (files[2] / "__1_0.distcp").write_bytes((files[2] / "__1_0.distcp").read_bytes()[:-1])
    content = bytearray((files[1] / METADATA).read_bytes())
    content[40] ^= 1
    (files[1] / METADATA).write_bytes(content)
    loaded, damaged = directory.load_newest()
    assert loaded["step"] == 3
    assert "the length of __1_0.distcp differs" in damaged[0]
    assert f"the CRC-32 of {METADATA} differs" in damaged[1]
    (files[0] / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"its manifest\.json cannot be read"):
        load_checkpoint(files[0])


def test_torchrun_starts_anew_when_one_dies(tiny, tmp_path):
    whole, killed = tiny("whole", **KILLED), tiny("killed", **KILLED)
    processes.run(2, tmp_path / "log", pretrain, whole)
    processes.run(1, tmp_path / "log", processes.elastic, killed, tmp_path / "log", 5)
    assert "continuing after step 3" in (tmp_path / "log").read_text()
    assert processes.figures(killed.output_path) == processes.figures(whole.output_path)
