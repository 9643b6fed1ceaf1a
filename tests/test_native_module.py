"""electra_fast._native: what it was built with, and that its Philox is the published one and the contract's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from electra_fast._native import build_info, philox

import electra_fast
from electra_fast.ops import native

KNOWN_ANSWERS = json.loads((Path(__file__).parent / "ops" / "philox_known_answers.json").read_text())["philox4x32"]
CAPABILITIES = ("baseline", "avx2", "avx512", "avx512_bf16")


def test_the_native_library_is_there() -> None:
    """Tests of native ops skip where it is not; this one fails, so that a suite without them is not green."""
    assert native.error is None


def test_build_info_says_what_was_built_and_what_runs() -> None:
    info = build_info()
    assert set(info) == {
        "version", "torch", "cuda", "compiler", "instruction_sets", "hardware_capability", "capability",
    }  # fmt: skip
    assert info["version"] == electra_fast.__version__
    built, running = (tuple(map(int, version.split(".")[:2])) for version in (info["torch"], torch.__version__))
    assert built >= (2, 11)
    assert running >= (2, 11)
    assert info["cuda"] == "none" or float(info["cuda"]) >= 12
    assert info["compiler"].split()[0] in ("GNU", "Clang", "AppleClang")
    assert "baseline" in info["instruction_sets"].replace(";", " ").split()
    hardware, used = (CAPABILITIES.index(info[key]) for key in ("hardware_capability", "capability"))
    assert used <= hardware


@pytest.mark.parametrize("answer", KNOWN_ANSWERS, ids=lambda answer: f"{answer['rounds']}-{answer['counter'][0]}")
def test_philox_gives_the_published_answers(answer: dict[str, Any]) -> None:
    counter, key, words = ([int(word, 16) for word in answer[name]] for name in ("counter", "key", "words"))
    assert list(philox(*counter, *key, rounds=answer["rounds"])) == words


def test_philox_has_seven_rounds_unless_told() -> None:
    assert philox(1, 2, 3, 4, 5, 6) == philox(1, 2, 3, 4, 5, 6, rounds=7) != philox(1, 2, 3, 4, 5, 6, rounds=10)


def test_words_are_32_bits_wide() -> None:
    with pytest.raises(TypeError):
        philox(2**32, 0, 0, 0, 0, 0)
    with pytest.raises(TypeError):
        philox(0, 0, 0, 0, 0, -1)
