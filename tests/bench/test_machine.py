"""What is recorded of the machine, and its roof."""

import subprocess

import pytest
import torch

from electra_fast.bench import machine, roofline


def test_the_machine_is_described():
    facts = machine.describe("cpu")
    assert facts["backend"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["date"].endswith("Z")
    assert "kind" not in facts  # what a line of the records is, is called so
    assert "run" not in facts
    assert machine.last_level_cache_bytes() > 1 << 16
    assert machine.clock_mhz("cpu") >= 0
    assert machine.load_average() >= 0


def test_the_commit_is_that_of_the_package_and_not_of_where_it_was_installed(tmp_path, monkeypatch):
    (tmp_path / "electra_fast").mkdir()
    (tmp_path / "electra_fast" / "__init__.py").write_text("")
    monkeypatch.setattr(machine.electra_fast, "__file__", str(tmp_path / "electra_fast" / "__init__.py"))

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert machine.commit() == ""  # a folder in a repository that knows nothing of it
    git("add", ".")
    git("commit", "-m", "second")
    assert len(machine.commit()) >= 7
    (tmp_path / "electra_fast" / "__init__.py").write_text("changed = True\n")
    assert machine.commit().endswith("-dirty")


def test_without_git_there_is_no_commit(monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(machine.subprocess, "run", missing)
    assert machine.commit() == ""


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "_COPY_BYTES", 1 << 16)
    monkeypatch.setattr(roofline, "_SIZES", (32, 64))
    monkeypatch.setattr(roofline, "_PREPACKED", ((32, 64, 64),))


def test_a_roof_is_the_best_way_and_says_which(small):
    told = []
    roof = roofline.measure("cpu", seconds=0.0, on_step=told.append)
    assert roof.copy > 0
    assert roof.matrix.keys() == roof.how.keys() >= {"float32", "bfloat16"}
    assert all(rate > 0 for rate in roof.matrix.values())
    assert told == ["copy bandwidth", "float32 products", "bfloat16 products", "int8 products"]
    assert roof.share("matrix", "float32", roof.matrix["float32"]) == 1.0


def test_ways_that_are_not_for_a_dtype_are_left_out(small):
    names = [name for _, name in roofline._products("cpu", torch.int8, 0.0)]
    assert names
    assert not any("oneDNN" in name for name in names)
