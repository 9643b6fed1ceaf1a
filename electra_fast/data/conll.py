"""CoNLL files: a token a line, its tag in another column, a blank line behind each sentence.

Columns are parted by tabs if the line holds any, and by spaces otherwise. Lines that begin with ``-DOCSTART-`` and
comments in front of a sentence (``# sent_id = 3``, ``# id 3``) are left out. Files may be compressed (.gz, .xz, .bz2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from electra_fast.data.tables import open_text
from electra_fast.errors import DataError
from electra_fast.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

_COMMENT = re.compile(r"#\s?(\w+\s*=|id\s)")


def read_conll(
    path: str | Path, *, token_column: int = 1, tag_column: int | None = None, labelled: bool = True
) -> Dataset:
    """The sentences of a file: columns ``tokens`` and ``tags``, lists of strings of equal length.

    Args:
        token_column: counted from 1.
        tag_column: counted from 1. Default: the last.
        labelled: False: a file of one column is read, too; ``tags`` is then left out.

    Raises:
        DataError: the file is missing, empty or not UTF-8, lacks a column, or a line has more or fewer columns than
            the first; names file and line.
    """
    datasets = require("datasets", "finetune", "reading a CoNLL file")
    with open_text(path) as lines:
        tokens, tags, width = _sentences(lines, path, token_column, tag_column, labelled)
    strings = datasets.Sequence(datasets.Value("string"))
    columns = {"tokens": tokens} | ({"tags": tags} if width > 1 else {})
    return datasets.Dataset.from_dict(columns, features=datasets.Features(dict.fromkeys(columns, strings)))


def _sentences(
    lines: Iterable[str], path: str | Path, token_column: int, tag_column: int | None, labelled: bool
) -> tuple[list[list[str]], list[list[str]], int]:
    """Tokens and tags of every sentence, and how many columns there are."""
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    width = first = 0
    inside = False
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip(" \t"):
            inside = False
            continue
        if not inside and _COMMENT.match(line):
            continue
        fields = (
            [field.strip(" ") for field in line.split("\t")]
            if "\t" in line
            else [field for field in line.split(" ") if field]
        )
        if fields[0] == "-DOCSTART-":
            inside = False
            continue
        if not width:
            width, first = len(fields), number
            _check_width(path, number, width, token_column, tag_column, labelled)
        if len(fields) != width:
            raise DataError(
                f"{path}, line {number}: {_columns(len(fields))}, expected {width} as in line {first}: "
                "a token and its tags a line, parted by tabs or spaces, and a blank line behind each sentence"
            )
        token, tag = fields[token_column - 1], fields[(tag_column or 0) - 1]
        if not token or not tag:
            raise DataError(
                f"{path}, line {number}: the {'tag' if token else 'token'} is empty. Mend or remove the line"
            )
        if not inside:
            tokens.append([])
            tags.append([])
            inside = True
        tokens[-1].append(token)
        tags[-1].append(tag)
    if not tokens:
        raise DataError(f"{path} holds no sentence: expected a token and its tag a line")
    return tokens, tags, width


def _check_width(
    path: str | Path, number: int, width: int, token_column: int, tag_column: int | None, labelled: bool
) -> None:
    if width == 1 and labelled:
        raise DataError(f"{path}, line {number}: one column, expected a token and its tag, parted by a tab or spaces")
    for what, column in (("token", token_column), ("tag", tag_column)):
        if column is not None and column > width and (what == "token" or width > 1):
            raise DataError(f"{path}, line {number}: {_columns(width)}, but the {what} is to be in column {column}")


def _columns(count: int) -> str:
    return "one column" if count == 1 else f"{count} columns"
