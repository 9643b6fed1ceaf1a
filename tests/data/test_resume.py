"""A job that is killed, interrupted or terminated at any point goes on and ends with the bytes of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from electra_fast.data import PrepareOptions, open_corpus, prepare
from electra_fast.data import text_pass as module
from electra_fast.errors import ShardError

WORDS = [f"w{index}" for index in range(40)]
PYTHONPATH = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def make_input(folder):
    lines = [" ".join(WORDS[(i * k) % 40] for k in range(1, 3 + i % 9)) for i in range(600)]
    documents = ["\n".join(lines[i : i + 20]) for i in range(0, 600, 20)]
    (folder / "a.txt").write_text("\n\n".join(documents[:11]))
    (folder / "b.txt").write_text("\n\n".join(documents[11:]))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")


def make_options(folder, output, workers=1):
    return PrepareOptions(
        inputs=[folder / "a.txt", folder / "b.txt"],
        output=folder / output,
        tokenizer=folder / "vocab.txt",
        max_length=32,
        validation_fraction=0.2,
        shard_tokens=600,
        workers=workers,
    )


def files(directory):
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.name != "job.json"}


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(module, "UNIT_CHARACTERS", 700)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture
def whole(tmp_path):
    make_input(tmp_path)
    prepare(make_options(tmp_path, "whole"))
    return files(tmp_path / "whole")


# Runs the job once for every number given, each in a fork that kills itself at that write: before the file takes its
# final name (odd numbers, the temporary file is left) or right after (even ones).
KILLER = """
import os, signal, sys
from pathlib import Path
from test_resume import make_options, module
from electra_fast.data import prepare

module.UNIT_CHARACTERS = 700
folder = Path(sys.argv[1])
replace = os.replace
for number in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        done = []
        def killing(source, target):
            done.append(target)
            if len(done) == (number + 1) // 2:
                if number % 2 == 0:
                    replace(source, target)
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        os.replace = killing
        prepare(make_options(folder, f"killed{number}"))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(number, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
"""


def run_killer(folder, numbers):
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder), *map(str, numbers)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return dict(map(int, line.split()) for line in result.stdout.splitlines())


def test_killed_at_many_points(tmp_path, whole):
    writes = [*range(1, 14), 20, 31, 42, 45, 46, 47]
    status = run_killer(tmp_path, writes)
    killed = [number for number in writes if status[number] == signal.SIGKILL]
    assert len(killed) > 15
    assert killed == list(writes[: len(killed)])
    assert len(killed) < len(writes)  # the last were the last writes of the job
    for number in killed:
        directory = tmp_path / f"killed{number}"
        if number < killed[-1]:
            with pytest.raises(ShardError, match=r"is not finished|is not a prepared corpus"):
                open_corpus(directory)
        prepare(make_options(tmp_path, directory.name))
        assert files(directory) == whole, number
        assert not json.loads((directory / "job.json").read_text())["pending"]["train"]


def test_killed_twice_with_other_numbers_of_workers(tmp_path, whole):
    run_killer(tmp_path, [15])
    shutil.move(tmp_path / "killed15", tmp_path / "killed14")
    run_killer(tmp_path, [14])
    prepare(make_options(tmp_path, "killed14", workers=2))
    assert files(tmp_path / "killed14") == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_then_acts(tmp_path, whole, number):
    class Terminated(Exception):
        pass

    def terminate(*_):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    seen = []

    def listen(event):
        if event.stage == "tokenising" and event.tokens and not seen:
            seen.append(event)
            signal.raise_signal(number)

    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated):
            prepare(make_options(tmp_path, "out"), listen)
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)
    state = json.loads((tmp_path / "out" / "job.json").read_text())
    assert state["splits"]["train"]["tokens"] > 0
    assert state["pending"]["train"]["tokens"] > 0
    notes = []
    prepare(make_options(tmp_path, "out"), lambda event: notes.append(event.message))
    assert any("going on after" in note for note in notes)
    assert files(tmp_path / "out") == whole


def test_a_second_signal_acts_at_once(tmp_path, whole):
    def listen(event):
        if event.stage == "tokenising" and event.tokens:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second signal was held back")

    with pytest.raises(KeyboardInterrupt):
        prepare(make_options(tmp_path, "out"), listen)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_that_is_swallowed_still_ends_the_job(tmp_path, whole):
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt):
            prepare(make_options(tmp_path, "out"), lambda event: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_damaged_finished_shard_is_noticed_on_resuming(tmp_path, whole):
    run_killer(tmp_path, [30])
    path = tmp_path / "killed30" / "train-00000.shard"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"train-00000\.shard is damaged"):
        prepare(make_options(tmp_path, "killed30"))


def test_a_changed_tokenizer_is_noticed_on_resuming(tmp_path):
    make_input(tmp_path)
    options = PrepareOptions(
        inputs=[tmp_path / "a.txt"], output=tmp_path / "out", vocab_size=100, validation_fraction=0.5, workers=1
    )

    def listen(event):
        if event.stage == "tokenising" and event.tokens:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        prepare(options, listen)
    path = tmp_path / "out" / "tokenizer.json"
    saved = path.read_text()
    path.write_text(saved.replace('"lowercase": true', '"lowercase": false'))
    with pytest.raises(ShardError, match=r"tokenizer in .* was changed"):
        prepare(options)
    path.write_text(saved)
    prepare(options)
    open_corpus(tmp_path / "out")


PARENT = """
import sys
from pathlib import Path
from test_resume import make_options, module
from electra_fast.data import prepare

def listen(event):
    if event.stage == "tokenising" and event.tokens:
        import multiprocessing, time
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)

if __name__ == "__main__":
    module.UNIT_CHARACTERS = 700
    module._SECONDS_BETWEEN_REPORTS = 0.0
    prepare(make_options(Path(sys.argv[1]), "orphans", workers=2), listen)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path, whole):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    workers = list(map(int, parent.stdout.readline().split()))
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    prepare(make_options(tmp_path, "orphans"))
    assert files(tmp_path / "orphans") == whole
