"""Multiple-choice questions from tables: choices as a list in one column, or a column for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.tables import find_column, read_table
from electra_fast.errors import DataError
from electra_fast.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

_CONTEXTS = ("context", "premise", "passage", "article", "sent1")
_QUESTIONS = ("question", "stem", "sent2")
_CHOICES = ("choices", "options", "endings", "answers")
_NUMBERED = re.compile(r"(choice|option|ending|answer|alternative)[ _]?(\d+|[a-zA-Z])")
_LABELS = ("label", "answer", "answer_key", "answerKey", "gold")


def read_choices(
    path: str | Path, context: str | None, question: str | None, label: str | None, *, labelled: bool
) -> Dataset:
    """Columns ``choices`` (list of strings), ``context`` or ``question`` or both, and ``label`` (an index).

    Args:
        path: a table. Its choices are lists in a column called choices, options, endings or answers, or stand in
            columns of their own: choice0, choice1, …, ending_1, …, option A, …
        context, question, label: what columns are called; None: looked for. A label is the number of a choice, counted
            from 0 (the columns' own numbers or letters, where there are such columns), a letter, or the choice itself.
        labelled: False: the label may be missing.

    Raises:
        DataError: the file is missing or damaged, lacks a column, or a row's choices or label are none; names the row.
    """
    datasets = require("datasets", "finetune", "reading a table")
    table = read_table(path)
    columns: dict[str, list[Any]] = {}
    for name, given, usual, option in (
        ("context", context, _CONTEXTS, "text_column"),
        ("question", question, _QUESTIONS, "pair_column"),
    ):
        if given is not None or any(known in table.column_names for known in usual):
            columns[name] = _texts(table, find_column(table, path, usual, option, given), path)
    if not columns:
        find_column(table, path, _CONTEXTS, "text_column")
    choices, keys = _choices(table, path)
    columns["choices"] = choices
    if labelled or label is not None or any(name in table.column_names for name in _LABELS):
        values = table[find_column(table, path, _LABELS, "label_column", label)]
        columns["label"] = [
            None if value is None else _index(value, choices[row], keys, f"{path}, row {row + 1}")
            for row, value in enumerate(values)
        ]
    kinds = {name: datasets.Value("string") for name in columns}
    kinds |= {"choices": datasets.Sequence(datasets.Value("string"))}
    kinds |= {"label": datasets.Value("int64")} if "label" in columns else {}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def _texts(table: Dataset, column: str, path: str | Path) -> list[str | None]:
    values = list(table[column])
    for row, value in enumerate(values, 1):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{path}, row {row}: column {column!r} must hold text, got {value!r:.60}")
    return values


def _choices(table: Dataset, path: str | Path) -> tuple[list[list[str]], list[str]]:
    """The choices of every row, and what their columns are numbered by (nothing for lists)."""
    lists = next((name for name in _CHOICES if name in table.column_names), None)
    if lists is not None:
        rows, keys = list(table[lists]), []
    else:
        numbered = [(name, match[2]) for name in table.column_names if (match := _NUMBERED.fullmatch(name))]
        if len(numbered) < 2:
            raise DataError(
                f"{path} has no choices (it has {', '.join(table.column_names)}): expected a list in a column "
                f"{_CHOICES[0]!r}, or columns choice0, choice1, …"
            )
        keys = [key for _, key in numbered]
        # A field that is empty means that this row has fewer choices; only at the end, or labels would be displaced.
        rows = [list(row) for row in zip(*(table[name] for name, _ in numbered), strict=True)]
        rows = [row[: max((i + 1 for i, text in enumerate(row) if text is not None), default=0)] for row in rows]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) < 2 or not all(isinstance(text, str) and text for text in row):
            raise DataError(f"{path}, row {number}: expected two or more choices, each a text, got {row!r:.80}")
    return rows, keys


def _index(value: Any, choices: Sequence[str], keys: Sequence[str], where: str) -> int:
    """The number of the right choice, from 0."""
    text = str(value).strip()
    if text in keys[: len(choices)]:
        return keys.index(text)
    if not keys and text.isdecimal() and int(text) < len(choices):
        return int(text)
    if text in choices:
        return choices.index(text)
    if len(text) == 1 and text.isascii() and text.isalpha() and ord(text.upper()) - ord("A") < len(choices):
        return ord(text.upper()) - ord("A")
    expected = f"one of {', '.join(keys)}" if keys else f"a number from 0 to {len(choices) - 1}"
    raise DataError(f"{where}: the label must be {expected}, a letter, or the right choice itself, got {value!r}")
