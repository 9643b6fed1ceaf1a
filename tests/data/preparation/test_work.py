"""The job at work: workers, signals and threads, what it says on its way, and the process it leaves as it was."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from electra_fast.data import Tokenizer, open_corpus, prepare, tokenise
from electra_fast.data import text_pass as module
from electra_fast.data.corpus import DocumentPart


@pytest.mark.parametrize("trained", [False, True], ids=["given", "trained"])
def test_the_same_bytes_for_any_number_of_workers(tmp_path, options, files, trained):
    training = {"tokenizer": None, "vocab_size": 150} if trained else {}
    prepare(options("one", **training))
    for workers in (2, 3):
        prepare(options(str(workers), workers=workers, **training))
        assert files(tmp_path / str(workers)) == files(tmp_path / "one")


def test_workers_follow_the_size_of_the_text(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [module.usable_workers(None, size) for size in (100, 3 << 20, 1 << 40)] == [1, 3, 8]
    assert module.usable_workers(2, 100) == 2


def test_a_worker_that_dies_is_reported(tmp_path, options, text, vocab):
    program = (
        "import os, signal\n"
        "from electra_fast.data import tokenise\n"
        "from electra_fast.data.corpus import DocumentPart\n"
        "options = tokenise.BuildOptions('no tokenizer', {}, 'document', 'carry', 8, 0)\n"
        "if __name__ == '__main__':\n"
        "    unit = [('train', DocumentPart(0, 0, 'x', False))]\n"
        "    try:\n"
        "        list(tokenise.build_all([(unit, None)], options, 2))\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("WorkerError a worker process ended unexpectedly")


def test_what_a_worker_does(tmp_path, options, monkeypatch, vocab):
    """The worker's own functions, in this process."""
    tokenizer = Tokenizer.load(vocab)
    build = tokenise.BuildOptions(tokenizer.backend.to_str(), tokenizer.names, "document", "carry", 16, 0)
    monkeypatch.setattr(tokenise, "_worker_builder", None)
    tokenise._start_worker(build)
    unit = [("train", DocumentPart(0, 0, "w1 w2\n\nw3", False)), ("validation", DocumentPart(1, 0, "w4", False))]
    result = tokenise._build(unit)
    assert result.splits["train"].examples.tokens.tolist() == [2, 6, 7, 8, 3]
    assert result.splits["validation"].examples.tokens.tolist() == [2, 9, 3]
    assert (result.splits["train"].lines, result.splits["validation"].documents) == (2, 1)


def test_workers_stopped_with_their_parent(tmp_path, options, monkeypatch):
    """Where a batch system ends the workers too, what is done is saved all the same."""
    real = module.build_all

    def dying(units, build, workers):
        for number, result in enumerate(real(units, build, workers)):
            if number == 3:
                signal.raise_signal(signal.SIGINT)
                raise tokenise.WorkerError("gone")
            yield result

    monkeypatch.setattr(module, "build_all", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(options())
    monkeypatch.setattr(module, "build_all", real)
    notes = []
    prepare(options(), lambda event: notes.append(event.message))
    assert any("going on after" in note for note in notes)

    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    monkeypatch.setattr(module, "build_all", dying)
    with pytest.raises(tokenise.WorkerError):
        prepare(options("other"))


def test_a_job_in_a_thread(tmp_path, options):
    """Signals can only be handled in the main thread; elsewhere the job runs without."""
    failures = []

    def job():
        try:
            prepare(options())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert failures == []
    open_corpus(tmp_path / "out")


def test_the_environment_is_as_it_was(tmp_path, options, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    prepare(options("a"))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    prepare(options("b"))
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_skipped_files_and_small_vocabularies_are_said(tmp_path, options, corpus_text):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(corpus_text())
    (folder / "b.py").write_text("x")
    notes = []
    prepare(options(inputs=folder, tokenizer=None, vocab_size=5000), lambda event: notes.append(event.message))
    assert any("skipped" in note and "b.py" in note for note in notes)
    assert any("5000 were asked for" in note for note in notes)


def test_progress_of_a_job(tmp_path, options, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_REPORTS", 0.0)
    events = []
    manifest = prepare(options(tokenizer=None, vocab_size=100), events.append)
    stages = list(dict.fromkeys(event.stage for event in events if event.stage != "note"))
    assert stages == ["reading", "training", "tokenising"]
    done = [event for event in events if event.stage == "tokenising"]
    assert [event.bytes_done for event in done] == sorted(event.bytes_done for event in done)
    assert done[-1].bytes_done == done[-1].bytes_total == manifest.input_bytes
    assert done[-1].tokens == sum(split.tokens for split in manifest.splits.values())
    assert done[-1].documents == 24
