"""``electra-fast prepare`` as a user meets it: exit codes, one-line messages, the summary, going on after a stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from electra_fast.cli.app import app
from electra_fast.data import PrepareProgress, open_corpus, text_pass

LINE = "the quick brown fox jumps over the lazy dog and the dog does not mind\n"
TEXT = "\n".join(LINE * 12 for _ in range(8))


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)


def run(command, capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    code = command("prepare", *arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


USUAL = ("-i", "text.txt", "-o", "corpus", "--vocab-size", "80", "--validation-fraction", "0.2", "--workers", "1")


def test_text_to_shards(command, capsys):
    code, out, err = run(command, capsys, *USUAL, "--max-length", "32")
    assert (code, err) == (0, "")
    for words in ("documents", "examples", "tokens", "unknown tokens", "tokens/s", "vocabulary entries", "validation"):
        assert words in out
    corpus = open_corpus("corpus")
    assert corpus.manifest.max_length == 32
    assert f"{corpus.manifest.splits['train'].tokens:,}" in out

    code, out, _ = run(command, capsys, *USUAL, "--max-length", "32")
    assert code == 0
    assert "already prepared" in out
    assert "tokens/s" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "nowhere.txt", "-o", "corpus"), "input nowhere.txt does not exist"),
        (("-i", "empty.txt", "-o", "corpus"), "the input holds no text"),
        (("-i", "latin.txt", "-o", "corpus", "--validation-fraction", "0"), "latin.txt: byte 0xe9 at offset 3"),
        (("-i", "text.txt", "-o", "corpus", "--tokenizer", "vocab.txt"), "has no [MASK]"),
        (("-i", "text.txt", "-o", "corpus", "--max-length", "4"), "--max-length: expected at least 8"),
        (("-i", "text.txt", "-o", "corpus"), "too few documents (8, separated by blank lines)"),
        (("-i", "text.txt", "-o", "text.txt"), "is a file, expected a directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command, capsys, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 au lait\n".encode("latin-1"))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    code, out, err = run(command, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("arguments", [("-o", "x"), ("-i", "text.txt", "-o", "x", "--exampels", "document"),
                                       ("-i", "text.txt", "-o", "x", "--examples", "packed")])  # fmt: skip
def test_wrong_usage_is_exit_code_2(command, capsys, arguments):
    assert run(command, capsys, *arguments)[0] == 2


def test_errors_can_be_replaced_and_the_rest_is_said(command, capsys, tmp_path):
    (tmp_path / "odd.txt").write_bytes(b"x" * 150_000 + b"\xe9\n" + b"the the dog dog\n" * 3)
    arguments = ("-i", "odd.txt", "-o", "corpus", "--validation-fraction", "0", "--errors", "replace")
    code, out, _ = run(command, capsys, *arguments)
    assert code == 0
    assert "lines longer than 100,000 characters, cut at spaces: 1" in out
    assert "Many words are unknown to this tokenizer" in out


def test_every_option_reaches_the_job(monkeypatch):
    """What the command line passes on, name by name."""
    seen = {}

    def job(options, progress):
        seen.update(vars(options))
        raise KeyboardInterrupt

    monkeypatch.setattr("electra_fast.data.preparation.prepare", job)
    arguments = {
        "--tokenizer": "t", "--vocab-size": "99", "--min-frequency": "3", "--sample-characters": "7",
        "--max-length": "64", "--examples": "document", "--overflow": "truncate", "--seed": "5",
        "--documents": "file", "--text-field": "body", "--encoding": "latin-1", "--errors": "replace",
        "--validation-fraction": "0.3", "--workers": "4", "--shard-tokens": "8",
    }  # fmt: skip
    flat = [word for pair in arguments.items() for word in pair]
    flags = ["--cased", "--keep-accents", "--overwrite", "-i", "a", "-i", "b", "-o", "c", "--validation-input", "v"]
    result = CliRunner().invoke(app, ["prepare", *flat, *flags])
    assert result.exit_code == 130
    assert "run the same command again without --overwrite to go on" in result.stderr
    expected = {name[2:].replace("-", "_"): value for name, value in arguments.items()}
    assert {name: str(seen[name]) for name in expected} == expected
    assert (seen["lowercase"], seen["strip_accents"], seen["overwrite"]) == (False, False, True)
    assert (seen["inputs"], str(seen["output"]), seen["validation_inputs"]) == (("a", "b"), "c", ("v",))


def test_a_share_of_a_job(command, monkeypatch, capsys):
    """The first machine leaves the rest to the second, which shows the corpus."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(LINE.split())]
    Path("vocab.txt").write_text("\n".join(vocabulary))
    monkeypatch.setattr("electra_fast.data.shared_job.PIECE_BYTES", 100)
    usual = ("-i", "text.txt", "-i", "more.txt", "-o", "corpus", "--tokenizer", "vocab.txt", "--workers", "1")
    Path("more.txt").write_text(TEXT)
    code, out, err = run(command, capsys, *usual, "--machines", "2", "--machine", "0")
    assert (code, err) == (0, "")
    assert "1 of 2 pieces are finished" in out
    assert "examples" not in out
    assert "tokens/s" in out
    monkeypatch.setenv("RANK", "1")
    code, out, err = run(command, capsys, *usual, "--machines", "2")
    assert (code, err) == (0, "")
    assert f"{open_corpus('corpus').manifest.splits['train'].tokens:,}" in out
    monkeypatch.delenv("RANK")
    code, _, err = run(command, capsys, *usual, "--machine", "1")
    assert (code, err) == (2, "error: --machine is one of several: say of how many with --machines\n")


def test_help_teaches():
    result = CliRunner().invoke(app, ["prepare", "--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for words in ("electra-fast prepare --input books.txt --output corpus", "--vocab-size", "blank line", "held out"):
        assert words in result.output


def test_progress_bars(monkeypatch):
    """On a terminal: a bar a stage, the rate without what an earlier run did, and notes above the bars."""
    from rich.console import Console

    from electra_fast.cli.progress import preparing

    console = Console(force_terminal=True, width=120, record=True)
    with preparing(console) as show:
        show(PrepareProgress("note", message="going on after [7] documents"))
        show(PrepareProgress("reading", 10, 100))
        show(PrepareProgress("training", 100, 100))
        show(PrepareProgress("tokenising", 10, 100, 3, 1000))
        time.sleep(0.01)
        show(PrepareProgress("tokenising", 90, 100, 5, 3000))
        (task,) = show._bars.tasks
        assert task.description == "text to tokens"
        assert (task.completed, task.total) == (90, 100)
        rate = float(task.fields["rate"].split()[0].replace(",", ""))
        assert 0 < rate <= 200_000
    assert "going on after [7] documents" in console.export_text()


@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "process"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_from_outside_is_saved(tmp_path, command, monkeypatch, capsys, number, code, whole_group):
    """A real process with real workers is told to stop; the same command goes on and ends like one that was not.

    A terminal sends Ctrl-C, and a batch system SIGTERM, to the workers as well.
    """
    (tmp_path / "long.txt").write_text("\n".join(LINE * 30 for _ in range(60)))
    arguments = ["-i", "long.txt", "--vocab-size", "80", "--validation-fraction", "0.1", "--workers", "2"]
    program = (
        "import electra_fast.data.text_pass as p, electra_fast.cli.progress as c, time\n"
        "class Bars(c._PrepareBars):\n"
        "    def __call__(self, event):\n"
        "        if event.stage == 'tokenising' and event.tokens: print('at work', flush=True); time.sleep(0.2)\n"
        "if __name__ == '__main__':\n"
        "    p._SECONDS_BETWEEN_REPORTS = 0.0; p.UNIT_CHARACTERS = 2500; c._PrepareBars = Bars\n"
        "    from electra_fast.cli.app import main; main()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script), "prepare", *arguments, "-o", "corpus"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert process.stdout.readline() == "at work\n"
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == "stopped: run the same command again to go on\n"

    monkeypatch.setattr(text_pass, "UNIT_CHARACTERS", 2500)
    arguments[-1] = "1"
    status, out, _ = run(command, capsys, *arguments, "-o", "corpus")
    assert status == 0
    assert "going on after" in out
    run(command, capsys, *arguments, "-o", "whole")
    assert (tmp_path / "corpus/train-00000.shard").read_bytes() == (tmp_path / "whole/train-00000.shard").read_bytes()
    assert (tmp_path / "corpus/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()
