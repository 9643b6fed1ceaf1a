"""A job shared by several machines: the same bytes for any number of them, also when one is killed and started anew."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from electra_fast.data import PrepareOptions, open_corpus, prepare, prepare_share, shared_job, text_pass
from electra_fast.data.batches import PackedBatches
from electra_fast.data.shared_job import Piece, machine_of, share_of
from electra_fast.data.sources import find_sources
from electra_fast.errors import ConfigError, CorpusError, ShardError

WORDS = [f"w{index}" for index in range(40)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(text_pass, "UNIT_CHARACTERS", 700)
    monkeypatch.setattr(text_pass, "_SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr(shared_job, "PIECE_BYTES", 2500)


@pytest.fixture
def options(tmp_path):
    """``options("out", name=value, …)``: a job on nine files of different sizes, five pieces or more."""
    folder = tmp_path / "text"
    if not folder.exists():
        folder.mkdir()
        for number in range(9):
            documents = [
                "\n".join(" ".join(WORDS[(i * k + d) % 40] for k in range(1, 3 + i % 9)) for i in range(10 + number))
                for d in range(3 + 4 * (number % 3))
            ]
            (folder / f"{number}.txt").write_text("\n\n".join(documents))
        (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")

    def make(output, **changes):
        usual = {"tokenizer": tmp_path / "vocab.txt", "max_length": 32, "validation_fraction": 0.1, "workers": 1}
        return PrepareOptions(inputs=[folder], output=tmp_path / output, shard_tokens=400, **{**usual, **changes})

    return make


def contents(directory):
    """Every file of a corpus but the states of its jobs, which count how often they were saved."""
    found = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith("job.json")}


def together(options, machines, order=None):
    return [prepare_share(options, machines=machines, machine=machine) for machine in order or range(machines)]


@pytest.fixture
def whole(tmp_path, options):
    together(options("whole"), 1)
    return contents(tmp_path / "whole")


@pytest.mark.parametrize(("machines", "order"), [(2, (0, 1)), (3, (2, 0, 1)), (20, None)])
def test_the_same_bytes_for_any_number_of_machines(tmp_path, options, whole, machines, order):
    """In any order; the one that finishes writes the manifest, those before it leave none."""
    *before, last = together(options("shared"), machines, order)
    if machines < 20:  # else the last ones have nothing to do, and find it finished
        assert before == [None] * (machines - 1)
    assert contents(tmp_path / "shared") == whole
    corpus = open_corpus(tmp_path / "shared")
    assert corpus.manifest == last
    assert sum(map(len, corpus.shards["train"])) == last.splits["train"].examples
    assert len([name for name in whole if name.endswith("part.json")]) > 4


def test_every_document_is_in_it_once(tmp_path, options, whole):
    """As many documents, lines and tokens of text as a job on one machine finds in the same files."""
    alone = prepare(options("alone", examples="document"))
    shared = together(options("shared", examples="document"), 2)[-1]
    for count in ("documents", "lines", "tokens", "examples"):
        one, other = (sum(getattr(split, count) for split in m.splits.values()) for m in (alone, shared))
        assert one == other
    held_out = shared.splits["validation"].documents / sum(split.documents for split in shared.splits.values())
    assert 0.05 < held_out < 0.15


def test_training_reads_it(tmp_path, options, whole):
    batches = PackedBatches(tmp_path / "whole", tokens=256, epochs=1)
    assert (
        sum(batch.sequences for batch in batches) == open_corpus(tmp_path / "whole").manifest.splits["train"].examples
    )


MACHINE = """
import os, signal, sys
from pathlib import Path
from electra_fast.data import PrepareOptions, prepare_share, shared_job, text_pass

text_pass.UNIT_CHARACTERS = 700
shared_job.PIECE_BYTES = 2500
folder, writes = Path(sys.argv[1]), int(sys.argv[2])
replace, done = os.replace, []

def killing(source, target):
    done.append(target)
    if len(done) == writes:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = killing
options = PrepareOptions(inputs=[folder / "text"], output=folder / "shared", tokenizer=folder / "vocab.txt",
    max_length=32, validation_fraction=0.1, shard_tokens=400, workers=1)
prepare_share(options, machines=3)
"""


def test_three_processes_at_once_one_of_them_killed(tmp_path, options, whole):
    """The number of each from its environment, as torchrun or Slurm set it; the killed one is started again."""

    def start(machine, writes=0):
        names = {0: "RANK", 1: "SLURM_PROCID", 2: "SLURM_ARRAY_TASK_ID"}
        environment = {k: v for k, v in os.environ.items() if k not in names.values()}
        environment |= {names[machine]: str(machine + 1 if machine == 2 else machine), "SLURM_ARRAY_TASK_MIN": "1"}
        return subprocess.Popen([sys.executable, "-c", MACHINE, str(tmp_path), str(writes)], env=environment)

    processes = [start(0), start(1, writes=6), start(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, -signal.SIGKILL, 0]
    with pytest.raises(ShardError, match="is not finished"):
        open_corpus(tmp_path / "shared")
    assert start(1).wait(timeout=60) == 0
    assert contents(tmp_path / "shared") == whole


def test_another_number_of_machines_goes_on(tmp_path, options, whole):
    """What is finished stays; a signal in the middle of a piece loses nothing."""
    seen = []

    def listen(event):
        seen.append(event)
        if len(seen) == 8:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        prepare_share(options("shared"), machines=2, machine=0, progress=listen)
    together(options("shared"), 3)
    assert contents(tmp_path / "shared") == whole
    notes = []
    prepare_share(options("shared"), machines=5, machine=4, progress=lambda event: notes.append(event.message))
    assert any("nothing to do" in note for note in notes)


def test_validation_in_files_of_its_own(tmp_path, options):
    (tmp_path / "held.txt").write_text("w1 w2 w3 w4 w5\n" * 40)
    changes = {"validation_inputs": [tmp_path / "held.txt"], "validation_fraction": None}
    manifest = together(options("shared", **changes), 2)[-1]
    assert (manifest.splits["validation"].documents, manifest.splits["validation"].lines) == (1, 40)


def test_progress_is_that_of_the_share(options):
    events = []
    prepare_share(options("shared"), machines=2, machine=1, progress=events.append)
    done = [event for event in events if event.stage == "tokenising"]
    assert [event.bytes_done for event in done] == sorted(event.bytes_done for event in done)
    assert done[-1].bytes_done == done[-1].bytes_total > 0
    assert [event.tokens for event in done] == sorted(event.tokens for event in done)
    assert "other machines have the rest" in events[-1].message


def test_shares_are_of_nearly_equal_size(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (source,) = find_sources([tmp_path / "a.txt"]).files
    sizes = [900, 100, 100, 300, 300, 100, 500, 600]
    pieces = [Piece(i, "train", [dataclasses.replace(source, bytes=size)]) for i, size in enumerate(sizes)]
    shares = [share_of(pieces, 3, machine) for machine in range(3)]
    assert sorted(piece.number for share in shares for piece in share) == list(range(8))
    assert all(900 <= sum(piece.bytes for piece in share) <= 1000 for share in shares)


def test_the_number_of_a_machine():
    assert machine_of({"RANK": "3", "SLURM_PROCID": "9"}) == 3
    assert machine_of({"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10"}) == 2
    assert machine_of({"SLURM_PROCID": "4", "SLURM_ARRAY_TASK_MIN": "10"}) == 4
    with pytest.raises(ConfigError, match="machine is missing: give it, or start this where one of RANK"):
        machine_of({})
    with pytest.raises(ConfigError, match="got RANK='x'"):
        machine_of({"RANK": "x"})


@pytest.mark.parametrize(
    ("changes", "machines", "machine", "message"),
    [
        ({}, 0, 0, "machines must be at least 1, got 0"),
        ({}, 2, 2, "machine must be from 0 to 1 with 2 machines, got 2"),
        ({"tokenizer": None}, 2, 0, "tokenizer is missing: machines that share a job need it"),
        ({"overwrite": True}, 2, 0, "overwrite and machines exclude each other"),
    ],
)
def test_mistakes(tmp_path, options, changes, machines, machine, message):
    with pytest.raises(ConfigError, match=message):
        prepare_share(options("shared", **changes), machines=machines, machine=machine)
    assert not (tmp_path / "shared").exists()


def test_other_options_or_files_are_refused(tmp_path, options):
    together(options("shared"), 2, (1,))
    with pytest.raises(ConfigError, match=r"made with max_length = 32, asked for is 64"):
        prepare_share(options("shared", max_length=64), machines=2, machine=0)
    with pytest.raises(ConfigError, match="holds a corpus that was prepared elsewhere"):
        prepare(options("shared"))
    (tmp_path / "text" / "more.txt").write_text("w1 w2\n")
    with pytest.raises(ConfigError, match="input files are not those"):
        prepare_share(options("shared"), machines=2, machine=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        prepare_share(options("mine"), machines=2, machine=0)


def test_damage_is_noticed(tmp_path, options):
    together(options("shared"), 2, (1,))
    part = next((tmp_path / "shared" / "parts").rglob("part.json"))
    part.write_text(part.read_text()[:-20])
    with pytest.raises(ShardError, match=r"part\.json is damaged .*: remove .* and run this piece's machine again"):
        prepare_share(options("shared"), machines=2, machine=0)
    (tmp_path / "shared" / "plan.json").write_text("{}")
    with pytest.raises(ShardError, match=r"plan\.json is damaged"):
        prepare_share(options("shared"), machines=2, machine=0)


def test_overwriting_removes_all_of_it(tmp_path, options, whole):
    prepare(options("whole", overwrite=True))
    assert not (tmp_path / "whole" / "parts").exists()
    assert not (tmp_path / "whole" / "plan.json").exists()
    open_corpus(tmp_path / "whole")


def test_text_without_a_token(tmp_path, options):
    for path in (tmp_path / "text").iterdir():
        path.write_text("\x01\x02\n")
    with pytest.raises(CorpusError, match="the text holds no token"):
        together(options("shared"), 2)


def test_a_piece_that_another_process_prepares_is_left_to_it(tmp_path, options, whole):
    folder = tmp_path / "shared" / "parts" / "00000"
    prepare_share(options("shared"), machines=20, machine=19)  # writes the plan
    folder.mkdir(parents=True, exist_ok=True)
    notes = []
    with shared_job.open_directory(folder):
        manifest = prepare_share(options("shared"), machines=1, progress=lambda e: notes.append(e.message), machine=0)
    assert manifest is None
    assert "piece 0 is being prepared by another process: left to it" in notes
    together(options("shared"), 1)
    assert contents(tmp_path / "shared") == whole
