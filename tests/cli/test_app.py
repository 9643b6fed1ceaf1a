"""The command line's frame: help, version, and how errors become one line and an exit code."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from electra_fast import __version__
from electra_fast.cli import app as frame
from electra_fast.errors import ConfigError


@pytest.fixture
def call(monkeypatch, capsys):
    """Run ``main`` with a command that raises; returns the exit code and what stderr says."""

    def run(error: BaseException) -> tuple[int, str]:
        app = typer.Typer()

        @app.command()
        def prepare() -> None:
            raise error

        monkeypatch.setattr(frame, "app", app)
        monkeypatch.setattr(sys, "argv", ["electra-fast"])
        with pytest.raises(SystemExit) as exit_:
            frame.main()
        return exit_.value.code or 0, capsys.readouterr().err

    return run


def test_errors_of_the_user_are_one_line(call):
    assert call(ConfigError("mask_probability must be below 1")) == (2, "error: mask_probability must be below 1\n")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["run/metrics.jsonl", None])
def test_a_full_disk_says_how_to_go_on(call, code, name):
    status, said = call(OSError(code, os.strerror(code), name))
    assert status == 2
    where = f" for {name}" if name else ""
    assert said == (
        f"error: no space left on the disk{where}. "
        "Free some there and run the same command again (with --resume if training had begun)\n"
    )


@pytest.mark.parametrize("kind", [PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError, OSError])
def test_a_file_that_cannot_be_used_is_named(call, kind):
    code, said = call(kind(errno.EACCES, "Permission denied", "runs/x"))
    assert (code, said) == (2, "error: cannot read or write runs/x: Permission denied\n")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no file is to blame"), RuntimeError("a bug")])
def test_other_errors_keep_their_traceback(call, error):
    with pytest.raises(type(error), match=str(error.args[-1])):
        call(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()], ids=["", "old typer"])
def test_an_interrupt_is_130(call, error):
    assert call(error) == (130, "interrupted\n")


def test_done_is_0(call):
    assert call(typer.Exit()) == (0, "")
    assert call(typer.Exit(3)) == (3, "")


PROGRAM = "import sys; from electra_fast.cli import main; sys.argv[0] = 'electra-fast'; main()"


def electra_fast(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)


def test_version_and_help():
    assert electra_fast("--version").stdout.strip() == f"electra-fast {__version__}"
    shown = electra_fast("--help")
    assert shown.returncode == 0
    for command in ("prepare", "pretrain", "show", "demo", "doctor"):
        assert command in shown.stdout
    nothing = electra_fast()
    assert "pretrain" in nothing.stdout + nothing.stderr
    assert "error" not in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrian", "there is no command 'pretrian': did you mean pretrain?"),
        ("train", "there is no command 'train': did you mean pretrain?"),
        ("fly", "there is no command 'fly': there are prepare, pretrain, status, report, show"),
        ("--verison", "electra-fast has no option --verison: did you mean --version?"),
        ("pretrain --modle small", "electra-fast pretrain has no option --modle: did you mean --model?"),
        ("pretrain --hidden_size 9", "electra-fast pretrain has no option --hidden_size: did you mean --hidden-size?"),
        ("pretrain --fly", "electra-fast pretrain has no option --fly: see electra-fast pretrain --help"),
        ("pretrain --model smal", "--model must be small, base or large, got 'smal': did you mean 'small'?"),
        ("pretrain --model=smal --seed 3", "--model must be small, base or large, got 'smal': did you mean 'small'?"),
        ("pretrain --model small --model fly", "--model must be small, base or large, got 'fly'"),
        ("pretrain --batch-size few", "--batch-size must be a whole number, got 'few'"),
        ("pretrain --learning-rate fast", "--learning-rate must be a number, got 'fast'"),
        ("pretrain --resume=3", "option '--resume' does not take a value"),
        ("prepare -i", "option '-i' requires an argument"),
        ("prepare -i a -o b --examples docment", "--examples must be two-segment or document, got 'docment': did you"),
        ("prepare -i a", "electra-fast prepare needs --output: Directory for the corpus."),
        ("prepare -i a -o b c", "got unexpected extra argument"),
        ("show", "electra-fast show needs MODEL: Directory of a run, or the model directory in it."),
        ("show a b --probability 2", "--probability must be a number from 0 to 1, got '2'"),
        ("demo --minutes 0", "--minutes must be a number from 0.05 on, got '0'"),
        ("doctor --dtype float31", "--dtype must be float32, bfloat16, float16 or float64, got 'float31': did you"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(command, capsys, arguments, message):
    assert command(*arguments.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1


def test_ctrl_c_in_a_real_process(tmp_path):
    """While a command is at work that leaves signals alone."""
    script = (
        "import electra_fast.diagnostics as d, time\n"
        "def report(dtype):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
        "d.report = report\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script + PROGRAM, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")
