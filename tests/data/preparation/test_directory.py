"""The directory of a corpus: files of others in it stay, one job at a time writes, and a disk can be full."""

import errno
import os

import pytest

from electra_fast.data import open_corpus, prepare
from electra_fast.data import text_pass as module
from electra_fast.data.job import open_directory
from electra_fast.errors import ConfigError, DiskFullError


def test_nothing_of_the_users_is_overwritten(tmp_path, options):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds other files \(thesis\.tex\)"):
            prepare(options(overwrite=overwrite))
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


@pytest.mark.parametrize("name", ["manifest.json", "job.json"])
@pytest.mark.parametrize(
    "content", ['{"name": "My app", "icons": []}', '{"format": "mine"}', "[]", "not JSON", "[" * 10**5]
)
def test_files_of_other_programs_are_not_taken_for_a_corpus(tmp_path, options, name, content):
    """Web apps have a manifest.json, models a vocab.txt and a tokenizer.json."""
    out = tmp_path / "out"
    out.mkdir()
    theirs = {name: content, "vocab.txt": "a\n", "tokenizer.json": "{}", ".cache.tmp": "x", "train-00000.shard": "y"}
    for file, text in theirs.items():
        (out / file).write_text(text)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"out holds other files \(.*give a new or empty directory"):
            prepare(options(overwrite=overwrite))
    assert {path.name: path.read_text() for path in out.iterdir()} == theirs


@pytest.mark.parametrize("finished", [True, False])
def test_overwriting_removes_only_what_prepare_wrote(tmp_path, options, finished):
    prepare(options())
    out = tmp_path / "out"
    if not finished:
        (out / "manifest.json").unlink()
    for name in ("notes.md", ".cache.tmp", ".tokenizer.json.tmp", ".train-00003.shard.tmp"):
        (out / name).write_text("x")
    prepare(options(overwrite=True, max_length=16))
    assert (out / "notes.md").exists()
    assert sorted(path.name for path in out.glob(".*")) == [".cache.tmp"]
    assert open_corpus(out).manifest.max_length == 16


def test_two_jobs_in_one_directory(tmp_path, options):
    with open_directory(tmp_path / "out") as created:
        assert created
        with pytest.raises(ConfigError, match="another process is writing"):
            prepare(options())


def test_the_output_is_a_file(tmp_path, options):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ConfigError, match="is a file, expected a directory"):
        prepare(options())
    with pytest.raises(ConfigError, match="cannot write to output"):
        prepare(options("out/below"))


@pytest.mark.parametrize("at", [1, 2, 4, 6, 9, 12])
def test_a_full_disk(tmp_path, options, files, monkeypatch, at):
    """The n-th file does not fit: a clear word, no half of a file, and the same call ends with the same bytes."""
    prepare(options("whole"))
    syncs = 0
    real = os.fsync

    def fsync(descriptor):
        nonlocal syncs
        syncs += 1
        if syncs == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        prepare(options())
    monkeypatch.undo()
    monkeypatch.setattr(module, "UNIT_CHARACTERS", 1500)
    if (tmp_path / "out").exists():
        assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]
    prepare(options())
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_no_space_for_the_directory(tmp_path, options, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = options()
    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(DiskFullError, match=r"cannot make .*no space left"):
        prepare(job)
