"""Checkpoint files: whole or absent, damage noticed, the newest kept."""

import builtins
import errno
import os
import pickle
import random

import pytest
import torch

from electra_fast import files
from electra_fast.errors import CheckpointError, DiskFullError
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory, load_checkpoint
from electra_fast.workflows.pretraining.sharded import METADATA, read_sharded


def state(value):
    return {"weights": torch.full((3000,), float(value)), "data": {"epoch": value}, "options": {"model": "small"}}


def test_newest_is_loaded_and_only_so_many_are_kept(tmp_path):
    directory = CheckpointDirectory(tmp_path / "checkpoints", keep=2)
    for step in (5, 90, 100):
        directory.save(step, state(step))
    assert [path.name for path in directory.files()] == ["step-00000090.pt", "step-00000100.pt"]
    loaded, damaged = directory.load_newest()
    assert damaged == []
    assert loaded["step"] == 100
    assert torch.equal(loaded["weights"], state(100)["weights"])
    assert loaded["data"] == {"epoch": 100}


def test_none_at_all(tmp_path):
    assert CheckpointDirectory(tmp_path / "none").load_newest() == (None, [])


@pytest.mark.parametrize("how", ["truncate", "empty", "flip"])
def test_damaged_newest_falls_back_and_says_so(tmp_path, how):
    directory = CheckpointDirectory(tmp_path)
    directory.save(1, state(1))
    path = directory.save(2, state(2))
    content = bytearray(path.read_bytes())
    if how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    loaded, damaged = directory.load_newest()
    assert loaded["step"] == 1
    assert len(damaged) == 1
    assert str(path) in damaged[0]
    assert "damaged" in damaged[0]


def test_a_damaged_file_takes_no_good_ones_place(tmp_path):
    """Two newer files are damaged: they are neither kept instead of what is saved next nor called intact."""
    directory = CheckpointDirectory(tmp_path, keep=2)
    directory.save(1000, state(1))
    for step in (2000, 3000):
        (tmp_path / f"step-{step:08d}.pt").write_bytes(b"PK nonsense")
    loaded, damaged = directory.load_newest()
    assert loaded["step"] == 1000
    assert len(damaged) == 2
    directory.save(1100, state(2))
    assert [path.name for path in directory.files()] == ["step-00001000.pt", "step-00001100.pt"]
    assert directory.load_newest()[0]["step"] == 1100
    assert sorted(path.name for path in tmp_path.glob("*.damaged")) == [
        "step-00002000.pt.damaged",
        "step-00003000.pt.damaged",
    ]


def test_a_users_copy_is_left_alone(tmp_path):
    directory = CheckpointDirectory(tmp_path, keep=1)
    copy = tmp_path / "step-00000001-backup.pt"
    directory.save(1, state(1)).rename(copy)
    for step in (2, 3):
        directory.save(step, state(step))
    assert copy.exists()
    assert directory.load_newest()[0]["step"] == 3


def test_all_damaged(tmp_path):
    directory = CheckpointDirectory(tmp_path)
    for step in (1, 2):
        directory.save(step, state(step)).write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError, match=r"all 2 checkpoints in .* are damaged"):
        directory.load_newest()


def test_no_flipped_bit_goes_unnoticed_and_changes_content(tmp_path):
    path = CheckpointDirectory(tmp_path).save(1, state(1))
    whole = path.read_bytes()
    draw = random.Random(0)
    noticed = 0
    for _ in range(150):
        content = bytearray(whole)
        content[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path)
        except CheckpointError:
            noticed += 1
        else:
            assert torch.equal(loaded["weights"], state(1)["weights"])
            assert loaded["data"] == {"epoch": 1}
    assert noticed > 100


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "step-00000001.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of electra-fast pretrain"):
        load_checkpoint(path)
    torch.save({"format": "electra-fast checkpoint", "version": 99}, path)
    with pytest.raises(CheckpointError, match="has format version 99"):
        load_checkpoint(path)
    torch.save({"format": print}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "step-00000002.pt")


@pytest.mark.parametrize("room", [0, 700, 9000])
def test_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path, monkeypatch, room):
    directory = CheckpointDirectory(tmp_path, keep=1)
    directory.save(1, state(1))

    class Full:
        def __init__(self, stream):
            self.stream, self.written = stream, 0

        def write(self, data):
            self.written += len(data)
            if self.written > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(data)

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

    monkeypatch.setattr(files, "open", lambda *args: Full(builtins.open(*args)), raising=False)
    with pytest.raises(DiskFullError, match=r"no space left.*step 2.*step-00000001\.pt is intact.*--resume"):
        directory.save(2, state(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert directory.load_newest()[0]["step"] == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_full_disk_leaves_no_part_of_a_directory(tmp_path, monkeypatch):
    """A checkpoint in parts, which torch writes."""
    directory = CheckpointDirectory(tmp_path, keep=1)
    parts = {"options": {"model": "small"}, "tensors": {"weights": torch.ones(3000)}}
    assert directory.save(1, parts).is_dir()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no space left.*step 2.*step-00000001 is intact.*--resume"):
        directory.save(2, parts)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    loaded, _ = directory.load_newest()
    tensors = {"weights": torch.zeros(3000)}
    read_sharded(loaded["tensors"], tensors)
    assert torch.equal(tensors["weights"], torch.ones(3000))
    with pytest.raises(CheckpointError, match="is not of this network"):
        read_sharded(loaded["tensors"], {"others": torch.zeros(3)})


class Runs:
    """What a pickle can be made to run."""

    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_nothing_in_a_directory_is_run(tmp_path, capsys):
    path = CheckpointDirectory(tmp_path).save(1, {"tensors": {"weights": torch.ones(3)}})
    (path / METADATA).write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match=r"builtins\.print is nothing that describes a tensor"):
        read_sharded(path, {"weights": torch.ones(3)})
    assert capsys.readouterr().out == ""


def test_what_a_killed_process_left_is_removed(tmp_path):
    directory = CheckpointDirectory(tmp_path)
    directory.save(1, state(1))
    (tmp_path / ".step-00000002.pt.tmp").write_bytes(b"half")
    directory.load_newest()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
