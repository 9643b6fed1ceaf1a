"""A small text of made-up words, a vocabulary for it, and the options of a job on it that finishes at once."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_fast.data import PrepareOptions, text_pass
from electra_fast.data.tokenizer import SPECIAL_TOKENS

WORDS = [f"w{index}" for index in range(60)]


@pytest.fixture
def corpus_text() -> Callable[..., str]:
    """``corpus_text(documents=24, seed=0)``: documents of three to 25 lines, a blank line between them."""

    def make(documents: int = 24, seed: int = 0) -> str:
        draw = random.Random(seed)
        found = []
        for _ in range(documents):
            lines = [" ".join(draw.choices(WORDS, k=draw.randint(2, 15))) for _ in range(draw.randint(3, 25))]
            found.append("\n".join(lines))
        return "\n\n".join(found) + "\n"

    return make


@pytest.fixture
def text(tmp_path: Path, corpus_text: Callable[..., str]) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(corpus_text())
    return path


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS.values(), *WORDS]) + "\n")
    return path


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the small text is many units of work."""
    monkeypatch.setattr(text_pass, "UNIT_CHARACTERS", 1500)


@pytest.fixture
def options(tmp_path: Path, text: Path, vocab: Path) -> Callable[..., PrepareOptions]:
    """``options(output="out", **changes)``: of a job on the text with the vocabulary."""

    def make(output: str = "out", **changes: object) -> PrepareOptions:
        chosen = {
            "inputs": [text],
            "output": tmp_path / output,
            "tokenizer": vocab,
            "max_length": 32,
            "validation_fraction": 0.1,
            "shard_tokens": 700,
            "workers": 1,
        }
        return PrepareOptions(**{**chosen, **changes})

    return make


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """``files(directory)``: every file of a corpus but the state of the job, which knows where it is."""

    def read(directory: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.name != "job.json"}

    return read
