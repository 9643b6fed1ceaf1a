"""Sentences and their translations: a table with a column for each, or two files of as many lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from electra_fast.data.tables import find_column, open_text, read_table, table_format
from electra_fast.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_SOURCES = ("source", "src", "text", "sentence")
_TARGETS = ("target", "tgt", "translation", "reference")
_NESTED = "translation"  # the column of objects {language: text} that many published data sets have


def parallel_files(path: str | Path) -> list[Path]:
    """The files that ``path`` names: one, or two with a comma between (unless a file is called so)."""
    parts = str(path).split(",")
    return [Path(path)] if len(parts) != 2 or Path(path).exists() else list(map(Path, parts))


def read_parallel(
    path: str | Path, source: str | None = None, target: str | None = None, *, labelled: bool = True
) -> Dataset:
    """Columns ``source`` and ``target``; None where a field, or a line, is empty.

    Args:
        path: a table (`electra_fast.data.tables`), or ``FILE,FILE``: two texts, line by line each other's translation,
            compressed or not. Where no translations are needed, a single text will do.
        source, target: names of the table's columns, or the languages in a column ``translation`` of objects.
        labelled: whether there must be translations; otherwise they are taken if they are there.

    Raises:
        DataError: a file cannot be read, two files have different numbers of lines, or a column is missing.
    """
    from datasets import Dataset

    files = parallel_files(path)
    if len(files) == 2:
        return Dataset.from_dict(dict(zip(("source", "target"), _parallel_lines(*files), strict=True)))
    if table_format(files[0]) is None and files[0].exists():
        if labelled:
            raise DataError(
                f"{path} has no translations: give a table with two columns (.tsv, .csv, .jsonl, .parquet), or two "
                f"files of as many lines as {path},TARGET"
            )
        return Dataset.from_dict({"source": _lines(files[0])})
    table = _flattened(read_table(path), source, target)
    columns = {"source": find_column(table, path, _SOURCES, "source_column", source)}
    if labelled or target in table.column_names or any(name in table.column_names for name in _TARGETS):
        columns["target"] = find_column(table, path, _TARGETS, "target_column", target)
    return Dataset.from_dict({name: _texts(list(table[column]), column, path) for name, column in columns.items()})


def _flattened(table: Dataset, source: str | None, target: str | None) -> Dataset:
    """The two languages of a column of objects as columns of their own."""
    names = [name for name in (source, target) if name is not None and name not in table.column_names]
    nested = table.features.get(_NESTED)
    if not isinstance(nested, dict) or not names or not all(name in nested for name in names):
        return table
    rows = list(table[_NESTED])
    for name in names:
        table = table.add_column(name, [row and row[name] for row in rows])
    return table


def _parallel_lines(source: Path, target: Path) -> tuple[list[str | None], list[str | None]]:
    sides = _lines(source), _lines(target)
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source} has {len(sides[0]):,} lines and {target} has {len(sides[1]):,}: each line must be the other's "
            "translation"
        )
    if not sides[0]:
        raise DataError(f"{source} and {target} are empty")
    return sides


def _lines(path: Path) -> list[str | None]:
    """Lines, parted by line ends alone: other separators are characters of the text."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with open_text(path) as stream:
        lines = stream.read().split("\n")
    return [line.removesuffix("\r") or None for line in (lines if lines[-1] else lines[:-1])]


def _texts(values: list, column: str, path: str | Path) -> list[str | None]:
    for row, value in enumerate(values, 1):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{path}, row {row}: column {column!r} must hold text, got {value!r}")
    return values
