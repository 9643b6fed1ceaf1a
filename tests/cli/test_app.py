"""The command line's frame: help, version, and how errors become one line and an exit code."""

import errno
import subprocess
import sys

import pytest

from electra_fast import __version__
from electra_fast.cli import app as frame
from electra_fast.errors import ConfigError


@pytest.fixture
def call(monkeypatch, capsys):
    """Run ``main`` with an app that raises; returns the exit code and what stderr says."""

    def run(error: BaseException) -> tuple[int, str]:
        def app() -> None:
            raise error

        monkeypatch.setattr(frame, "app", app)
        with pytest.raises(SystemExit) as exit_:
            frame.main()
        return exit_.value.code, capsys.readouterr().err

    return run


def test_errors_of_the_user_are_one_line(call):
    assert call(ConfigError("mask_probability must be below 1")) == (2, "error: mask_probability must be below 1\n")


def test_a_full_disk_names_the_file(call):
    code, said = call(OSError(errno.ENOSPC, "No space left on device", "run/metrics.jsonl"))
    assert code == 2
    assert said.startswith("error: no space left on the device while writing run/metrics.jsonl")


def test_other_errors_keep_their_traceback(monkeypatch):
    def app() -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(frame, "app", app)
    with pytest.raises(PermissionError):
        frame.main()


def test_an_interrupt_is_130(call):
    assert call(KeyboardInterrupt()) == (130, "interrupted\n")


def electra_fast(*arguments: str) -> subprocess.CompletedProcess:
    code = "import sys; from electra_fast.cli import main; sys.argv[0] = 'electra-fast'; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_version_and_help():
    assert electra_fast("--version").stdout.strip() == f"electra-fast {__version__}"
    shown = electra_fast("--help")
    assert shown.returncode == 0
    for command in ("prepare", "pretrain", "show", "demo", "doctor"):
        assert command in shown.stdout


def test_an_unknown_command_is_2():
    assert electra_fast("pretrian").returncode == 2
