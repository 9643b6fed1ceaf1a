"""The command line in this process, through `main` itself."""

import io
from collections.abc import Callable

import pytest

from electra_fast.cli import main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``command(*words, given=None)``: exit code of ``electra-fast words…``, with the bytes given as standard input."""

    def run(*words: object, given: bytes | None = None) -> int:
        monkeypatch.setattr("sys.argv", ["electra-fast", *map(str, words)])
        if given is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    return run
