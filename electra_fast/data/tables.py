"""Labelled data in tables: tsv, csv, jsonl, json, parquet, or a directory that `datasets` saved.

Of a tsv every character counts: tabs part fields, line ends rows, and a quotation mark is a quotation mark. A csv has
fields in quotes where they hold commas or line ends. Both begin with the names of the columns; all their fields are
strings, and an empty one is None. Files may be compressed (.gz, .xz, .bz2).
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import difflib
import gzip
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from electra_fast.errors import DataError
from electra_fast.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

_OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_LONGEST_FIELD = 1 << 27  # of a csv; Python's own limit of 128 KiB is short for a document


def table_format(path: str | Path) -> str | None:
    """tsv, csv, jsonl, json or parquet by the file's name, "datasets" for a directory; None for another name."""
    path = Path(path)
    if path.is_dir():
        return "datasets"
    name = Path(path.stem) if path.suffix.lower() in _OPENERS else path
    return _FORMATS.get(name.suffix.lower())


def read_table(path: str | Path) -> Dataset:
    """All rows of a table, in memory (a directory of `datasets` and parquet: mapped where that can be).

    Args:
        path: a file, a directory that ``Dataset.save_to_disk`` wrote, or one of parquet files.

    Returns:
        ``datasets.Dataset``: as many rows as the file, in its order; class labels as their names.

    Raises:
        DataError: the file is missing, empty, damaged or of an unknown format; names the line.
    """
    path = Path(path)
    datasets = require("datasets", "finetune", "reading a table")
    if not path.exists():
        raise DataError(f"there is no file {path}")
    form = table_format(path)
    if form is None:
        raise DataError(
            f"{path} is of no known format: name it .tsv, .csv, .jsonl, .json or .parquet (also with .gz, .xz or .bz2 "
            "behind), or give a directory that datasets saved"
        )
    if form == "datasets":
        table = _saved(path, datasets)
    elif form == "parquet":
        table = _parquet(path, datasets)
    else:
        with open_text(path) as stream:
            rows = _RECORDS[form](stream, path)
            columns = _columns(rows, path)
        table = _dataset(columns, path, datasets)
    if not len(table):
        raise DataError(f"{path} holds no rows")
    return _named_labels(table, datasets)


def find_column(table: Dataset, path: str | Path, names: Sequence[str], option: str, given: str | None = None) -> str:
    """The column ``given``, else the first of ``names`` that there is.

    Args:
        option: of the command line, by which the column can be named: the error says so.

    Raises:
        DataError: there is none.
    """
    there = table.column_names
    if given is not None:
        if given in there:
            return given
        near = difflib.get_close_matches(given, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(there)}"
        raise DataError(f"{path} has no column {given!r}: {hint}")
    found = next((name for name in names if name in there), None)
    if found is None:
        raise DataError(
            f"{path} has no column {names[0]!r} (it has {', '.join(there)}): name the column with "
            f"--{option.replace('_', '-')}"
        )
    return found


@contextlib.contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """A file, compressed or not, as text with its line ends as they are.

    Raises:
        DataError: it cannot be read, is damaged, or is not UTF-8 (within the block, too).
    """
    path = Path(path)
    opener = _OPENERS.get(path.suffix.lower(), open)
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x}): convert it, for instance with "
            f"iconv -f latin1 -t utf-8"
        ) from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged, or not a {path.suffix} file: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _tsv(stream: TextIO, path: Path) -> Iterator[dict[str, str | None]]:
    lines = (line.rstrip("\r\n").split("\t") for line in stream)
    return _delimited(enumerate(lines, 1), path, "tabs")


def _csv(stream: TextIO, path: Path) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(stream, strict=True)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        try:
            for fields in reader:
                yield reader.line_num, fields
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None

    return _delimited(numbered(), path, "commas")


def _delimited(lines: Iterator[tuple[int, list[str]]], path: Path, parted_by: str) -> Iterator[dict[str, str | None]]:
    names = next(lines, (1, []))[1]
    if not any(names):
        raise DataError(f"{path} is empty: its first line has to name the columns")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}, line 1: two columns are called {twice!r}")
    for number, fields in lines:
        if len(fields) != len(names):
            if fields in ([], [""]):  # a blank line
                continue
            raise DataError(
                f"{path}, line {number}: {len(fields)} fields parted by {parted_by}, expected {len(names)} "
                f"({', '.join(names)})"
            )
        yield {name: field or None for name, field in zip(names, fields, strict=True)}


def _jsonl(stream: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield parse_object(line, f"{path}, line {number}")


def _json(stream: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.load(stream)
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} must be a list of objects: [{{…}}, …] (for an object a line, name it .jsonl)")
    yield from rows


def parse_object(line: str, where: str) -> dict[str, Any]:
    """A JSON object in one line. DataError: it is none; begins with ``where``."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: no JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object {{…}}, got {line.strip()[:40]}")
    return row


def check_characters(value: Any, where: str) -> None:
    """DataError, beginning with ``where``, if an escape in JSON stood for half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: an escape stands for half a character (a lone surrogate): mend it") from None


_RECORDS = {"tsv": _tsv, "csv": _csv, "jsonl": _jsonl, "json": _json}


def _columns(rows: Iterator[dict[str, Any]], path: Path) -> dict[str, list[Any]]:
    """Columns of rows that may lack some, in the order in which they first appear."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for row in rows:
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, column in columns.items():
            column.append(row.get(name))
        count += 1
    if not columns:
        raise DataError(f"{path} holds no rows")
    return columns


def _dataset(columns: dict[str, list[Any]], path: Path, datasets: Any) -> Dataset:
    import pyarrow

    try:
        return datasets.Dataset.from_dict(columns)
    except UnicodeEncodeError:
        for name, column in columns.items():
            for row, value in enumerate(column, 1):
                check_characters(value, f"{path}, row {row}, column {name!r}")
        raise
    except (pyarrow.ArrowException, OverflowError):
        for name, column in columns.items():
            kinds: dict[str, int] = {}
            for row, value in enumerate(column, 1):
                if value is not None:
                    kinds.setdefault(_kind(value), row)
            if len(kinds) > 1:
                (one, first), (other, second) = list(kinds.items())[:2]
                raise DataError(
                    f"{path}: column {name!r} holds {one} in row {first} and {other} in row {second}: make them alike"
                ) from None
        raise


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "an object")


def _parquet(path: Path, datasets: Any) -> Dataset:
    import pyarrow
    import pyarrow.parquet

    try:
        return datasets.Dataset(pyarrow.parquet.read_table(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged, or not a parquet file: {str(error).splitlines()[0]}") from None


def _saved(path: Path, datasets: Any) -> Dataset:
    if any(path.glob("*.parquet")):
        return _parquet(path, datasets)
    try:
        table = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DataError(
            f"{path} is no directory that datasets saved (Dataset.save_to_disk), and holds no parquet files: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if isinstance(table, datasets.DatasetDict):
        raise DataError(
            f"{path} holds the splits {', '.join(table)}: name one, for instance {path / next(iter(table))}"
        )
    return table


def _named_labels(table: Dataset, datasets: Any) -> Dataset:
    """Class labels, which such a directory holds as numbers, by their names."""
    coded = {name: kind for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)}
    if not coded:
        return table
    columns = table.to_dict()
    for name, kind in coded.items():
        columns[name] = [None if value is None or value < 0 else kind.int2str(value) for value in columns[name]]
    return datasets.Dataset.from_dict(columns)
