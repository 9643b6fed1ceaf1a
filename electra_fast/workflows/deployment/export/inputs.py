"""What an exported model is compared on: random ids of many shapes, and real sentences, alone, padded and in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from electra_fast.errors import DataError

from .source import INPUTS, Source

_CHOICES = 2
_MOST_SAMPLES = 256
_BATCH = 16
# Short and long, with and without what tokenizers stumble over; a checkpoint of another language reads them as pieces.
_SENTENCES = (
    "It rains.",
    "The two of them walked along the river until the lamps were lit, and neither said a word.",
    "Der Zug nach Köln fährt heute von Gleis 9 ab, etwa 12 Minuten später als sonst.",
    "Call 555-0199 before 17:30, or write to office@example.org (ask for Ms. O'Neill)!",
    "昨日は雨でしたが、今日は晴れています。",
    "a",
    "She had read the letter so often that the folds had begun to tear, and still she could not have said what it was "
    "in those few lines, so plain and so friendly, that made her put it back each time with the feeling of having been "
    "told, very politely, something that she would understand only much later.",
)


@dataclass(frozen=True)
class Case:
    """One batch: int64 tensors under the names of `INPUTS`, and how it is called where it is reported."""

    name: str
    inputs: dict[str, Tensor]

    @property
    def shape(self) -> str:
        return " × ".join(str(length) for length in self.inputs["input_ids"].shape)


def random_cases(source: Source) -> list[Case]:
    """Ids drawn uniformly, from one token to the longest input; batches are ragged, one of them padded on the left."""
    longest = source.max_length
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, 1), (1, min(5, longest)), (3, min(17, longest)), (8, min(64, longest)), (1, longest)]
    cases = [_random(source, draw, rows, length, left=False) for rows, length in shapes]
    return [*cases, _random(source, draw, 4, min(23, longest), left=True)]


def real_cases(source: Source, samples: str | Path | None) -> list[Case]:
    """Sentences as the tokenizer makes them: the longest alone, all of them padded, neighbours as pairs.

    Args:
        samples: a text file, one input a line, the two texts of a pair apart by a tab; None: built-in sentences.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    lines = [(text,) for text in _SENTENCES] if samples is None else _read(Path(samples))
    singles = [line for line in lines if len(line) == 1]
    pairs = [line for line in lines if len(line) == 2]
    if samples is None:
        pairs = list(itertools.pairwise(text for (text,) in lines))
    cases = [_real(source, "the longest", [max(lines, key=lambda line: sum(map(len, line)))])]
    for name, texts in (("sentences", singles), ("pairs", pairs)):
        for first in range(0, len(texts), _BATCH):
            some = texts[first : first + _BATCH]
            cases.append(_real(source, f"{name} {first + 1} to {first + len(some)}", some))
    return cases


def _random(source: Source, draw: torch.Generator, rows: int, length: int, left: bool) -> Case:
    lengths = torch.randint(1, length + 1, (rows, 1), generator=draw)
    lengths[0] = length
    places = torch.arange(length)
    mask = (places >= length - lengths if left else places < lengths).long()
    ids = torch.randint(0, source.config.vocab_size, (rows, length), generator=draw)
    types = torch.randint(0, source.config.type_vocab_size, (rows, length), generator=draw)
    return _case(source, "random ids, padded on the left" if left else "random ids", (ids, mask, types))


def _real(source: Source, name: str, texts: Sequence[tuple[str, ...]]) -> Case:
    columns = list(zip(*texts, strict=True))
    tokens = source.tokenizer(
        *(list(column) for column in columns),
        padding=True,
        truncation=True,
        max_length=source.max_length,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    return _case(source, name, tuple(tokens[key] for key in INPUTS))


def _case(source: Source, name: str, tensors: tuple[Tensor, ...]) -> Case:
    """For a head that chooses, neighbouring rows (a single one twice) are the choices of a question."""
    if source.head.choices:
        whole = [torch.cat([x, x[-1:]]) if len(x) % _CHOICES else x for x in tensors]
        tensors = tuple(x.unflatten(0, (-1, _CHOICES)) for x in whole)
    return Case(name, dict(zip(INPUTS, tensors, strict=True)))


def _read(path: Path) -> list[tuple[str, ...]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"samples: there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"samples: {path} is not UTF-8: byte {error.start} cannot be read") from None
    lines = [tuple(line.split("\t")) for line in text.splitlines() if line.strip()][:_MOST_SAMPLES]
    if not lines:
        raise DataError(f"samples: {path} is empty: expected a text a line")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count("\t") > 1:
            raise DataError(
                f"samples: {path}, line {number}: expected a text, or two apart by a tab, got {line.count(chr(9)) + 1}"
            )
    return lines
