"""Tagged sentences from files: CoNLL's columns, and tables with a list of tokens and one of tags in a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.conll import read_conll
from electra_fast.data.tables import find_column, read_table, table_format
from electra_fast.errors import ConfigError, DataError
from electra_fast.extras import require
from electra_fast.workflows.finetuning.row_weights import read_weights

if TYPE_CHECKING:
    from datasets import Dataset

_TOKENS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "labels", "pos_tags", "chunk_tags")


def read_sentences(
    path: str | Path, token_column: str | None, tag_column: str | None, *, labelled: bool, weight: str | None = None
) -> Dataset:
    """Columns ``tokens`` and ``tags``, lists of strings, and ``weight`` if a table has the column of that name.

    Args:
        path: a table (.jsonl, .json, .parquet, a `datasets` directory); anything else is read as CoNLL columns.
        token_column, tag_column: of a table their names, of a CoNLL file their numbers, from 1; None: the usual.
        labelled: False: tags may be missing, and a table may have a column ``text`` instead of tokens.

    Raises:
        ConfigError: a CoNLL file's column is no number.
        DataError: the file is missing, damaged or of another form; names the line or row.
    """
    if table_format(path) in (None, "tsv", "csv"):
        columns = {"token_column": _number(token_column, "text_column") or 1}
        return read_conll(path, tag_column=_number(tag_column, "label_column"), labelled=labelled, **columns)
    datasets = require("datasets", "finetune", "reading a table")
    table = read_table(path)
    if not labelled and token_column is None and not any(name in table.column_names for name in _TOKENS):
        name = find_column(table, path, ("text",), "text_column")
        for row, text in enumerate(table[name], 1):
            if not isinstance(text, str):
                raise DataError(f"{path}, row {row}: column {name!r} must hold text, got {text!r:.60}")
        return datasets.Dataset.from_dict({"text": list(table[name])})
    tokens = find_column(table, path, _TOKENS, "text_column", token_column)
    columns = {"tokens": _strings(table, tokens, path)}
    if labelled or any(name in table.column_names for name in _TAGS):
        tags = find_column(table, path, _TAGS, "label_column", tag_column)
        columns["tags"] = _strings(_named(table, tags), tags, path)
        for row, (words, of) in enumerate(zip(columns["tokens"], columns["tags"], strict=True), 1):
            if words is not None and of is not None and len(words) != len(of):
                raise DataError(f"{path}, row {row}: {len(words)} tokens and {len(of)} tags, expected as many")
    strings = datasets.Sequence(datasets.Value("string"))
    sentences = datasets.Dataset.from_dict(columns, features=datasets.Features(dict.fromkeys(columns, strings)))
    for name, values in read_weights(table, path, weight).items():
        sentences = sentences.add_column(name, values)
    return sentences


def _number(column: str | None, option: str) -> int | None:
    if column is None:
        return None
    if not column.isdecimal() or int(column) < 1:
        raise ConfigError(f"{option} must be the number of a column of the CoNLL file, counted from 1, got {column!r}")
    return int(column)


def _named(table: Dataset, column: str) -> Dataset:
    """Tags that are kept as numbers of class labels, by their names."""
    feature: Any = getattr(table.features[column], "feature", None)
    if not hasattr(feature, "int2str"):
        return table
    named = [feature.int2str(numbers) if numbers else numbers for numbers in table[column]]
    return table.remove_columns(column).add_column(column, named)


def _strings(table: Dataset, column: str, path: str | Path) -> list[list[str] | None]:
    """A column of lists of strings, or None where there is nothing."""
    values = list(table[column])
    for row, value in enumerate(values, 1):
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise DataError(f"{path}, row {row}: column {column!r} must be a list of texts, got {value!r:.60}")
    return values
