"""Atomic files: whole or not at all, whatever happens while they are written."""

import errno
import os

import pytest

from electra_fast.errors import DiskFullError
from electra_fast.files import atomic_writer, write_text


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "a.bin"
    with atomic_writer(path) as stream:
        stream.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old ä\n")

    def stopped():
        with atomic_writer(path) as stream:
            stream.write(b"new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert path.read_bytes() == "old ä\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_message_and_leaves_nothing(tmp_path, monkeypatch, code):
    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left"), atomic_writer(tmp_path / "a") as stream:
        stream.write(b"x")
    assert os.listdir(tmp_path) == []


def test_another_system_error_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_writer(tmp_path / "missing" / "a"):
        pass
