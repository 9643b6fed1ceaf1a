"""Text in a column of a table: parquet files, and Arrow files as Hugging Face ``datasets`` saves and caches them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from electra_fast.data.sources import Source, optional_module
from electra_fast.errors import CorpusError

_ROWS = 256  # converted at once
_ARROW_FILE = b"ARROW1"  # begins Arrow's file format; what does not is taken for its stream format


def column_rows(source: Source, field: str, errors: str) -> Iterator[tuple[str, float]]:
    """The text of every row that has any, with the share of the file that is read by then.

    Args:
        source: a parquet or Arrow file.
        field: name of the column.
        errors: "strict" or "replace", for bytes that are not UTF-8.

    Raises:
        CorpusError: a damaged file, no such column, or one that holds no strings.
    """
    kind = "a parquet file" if source.format == "parquet" else "an Arrow file"
    arrow = optional_module("pyarrow", kind)
    batches = _parquet_batches if source.format == "parquet" else _arrow_batches
    row = 0
    try:
        for column, share in batches(source, field, arrow):
            for start in range(0, len(column), _ROWS):
                for value in column.slice(start, _ROWS).cast(arrow.large_binary()).to_pylist():
                    row += 1
                    if value is not None:
                        yield _decode(value, source, row, errors), share
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{source.path} is damaged, or not {kind}: {reason}") from None


def _parquet_batches(source: Source, field: str, arrow: ModuleType) -> Iterator[tuple[Any, float]]:
    parquet = optional_module("pyarrow.parquet", "a parquet file")
    with parquet.ParquetFile(source.path) as file:
        kind = _check(source, file.schema_arrow, field, arrow)
        done, rows = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=_ROWS, columns=[field]):
            done += len(batch)
            yield batch.column(0).cast(kind), done / rows


def _arrow_batches(source: Source, field: str, arrow: ModuleType) -> Iterator[tuple[Any, float]]:
    ipc = optional_module("pyarrow.ipc", "an Arrow file")
    with contextlib.ExitStack() as stack:
        mapped = stack.enter_context(arrow.memory_map(str(source.path)))
        is_file = mapped.read(len(_ARROW_FILE)) == _ARROW_FILE
        mapped.seek(0)
        reader = stack.enter_context(ipc.open_file(mapped) if is_file else ipc.open_stream(mapped))
        kind = _check(source, reader.schema, field, arrow)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            yield batch.column(field).cast(kind), mapped.tell() / source.bytes


def _check(source: Source, schema: Any, field: str, arrow: ModuleType) -> Any:
    """The type of the column's strings, those of a dictionary included."""
    if field not in schema.names:
        raise CorpusError(
            f"{source.path} has no column {field!r} (it has: {', '.join(schema.names)}). "
            "Name the column with --text-field"
        )
    kind = schema.field(field).type
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        raise CorpusError(f"{source.path}: column {field!r} holds {kind}, expected strings")
    return kind


def _decode(value: bytes, source: Source, row: int, errors: str) -> str:
    try:
        return value.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{source.path}, row {row}: byte 0x{value[error.start]:02x} at offset {error.start} of the text is not "
            "utf-8. Use --errors replace to go on"
        ) from None
