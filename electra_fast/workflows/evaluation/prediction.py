"""From a file, or standard input, to a line of JSON for each input."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from electra_fast.data.tables import open_text, parse_object, table_format
from electra_fast.errors import DataError
from electra_fast.files import atomic_writer

from .predictor import Predictor


def predict_file(
    predictor: Predictor, source: str, target: Path | None, *, window: int = 1024, with_input: bool = False
) -> int:
    """Predict every input of a file; returns how many there were.

    Args:
        source: a path, or "-" for standard input. Lines of text and of JSON are read and answered as they come; tables
            and the task's own formats are read whole first.
        target: file for the predictions, which takes its name when it is complete; None: standard output.
        window: most inputs that are read ahead (`Predictor.__call__`).
        with_input: put the input into each line, as ``input``.

    Raises:
        DataError: an input that cannot be used, named by file and line; those before it are predicted.
    """
    with contextlib.ExitStack() as stack:
        examples, total = _examples(predictor, source, stack)
        write = stack.enter_context(_writer(target))
        shown = stack.enter_context(_progress(total, target is not None or not sys.stdout.isatty()))
        taken: deque[Mapping[str, Any]] = deque()
        count = 0
        for count, prediction in enumerate(predictor.stream(_noted(examples, taken), window=window), 1):
            example = taken.popleft()
            write({"input": example, **prediction} if with_input else prediction)
            shown(count)
    return count


def _examples(
    predictor: Predictor, source: str, stack: contextlib.ExitStack
) -> tuple[Iterator[Mapping[str, Any]], int | None]:
    """Examples of a file, and how many there are, where that is known."""
    if source == "-":
        return _of_lines(predictor, sys.stdin, "standard input", as_json=False), None
    path = Path(source)
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if table_format(path) == "jsonl" or (table_format(path) is None and _is_plain(path)):
        stream = stack.enter_context(open_text(path))
        return _of_lines(predictor, stream, str(path), as_json=table_format(path) == "jsonl"), None
    table = predictor.task.read(path, labelled=False)
    return (_filled(predictor, row) for row in table), len(table)


def _of_lines(predictor: Predictor, stream: TextIO, name: str, *, as_json: bool) -> Iterator[Mapping[str, Any]]:
    """An example a line; blank lines of JSON are passed over, a blank line of text is an empty text."""
    try:
        for number, line in enumerate(stream, 1):
            line = line.rstrip("\r\n")
            if as_json and not line.strip():
                continue
            is_object = as_json or line.lstrip().startswith("{")
            where = f"{name}, line {number}"
            item = parse_object(line, where) if is_object else line
            try:
                yield predictor.accept(item)
            except DataError as error:
                raise DataError(f"{where}: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 (byte 0x{error.object[error.start]:02x})") from None


def _filled(predictor: Predictor, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table as an example: normalised, and a missing text filled, so that every row has its prediction."""
    texts = predictor.task.texts
    filled = {name: predictor.policy.fill_text if v is None and name in texts else v for name, v in row.items()}
    return {name: predictor.policy.value(value) if name in texts else value for name, value in filled.items()}


def _is_plain(path: Path) -> bool:
    """Whether a file of no known format is lines of text, by its name."""
    return path.suffix.lower() in ("", ".txt", ".text")


def _noted(examples: Iterable[Mapping[str, Any]], taken: deque[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for example in examples:
        taken.append(example)
        yield example


@contextlib.contextmanager
def _writer(target: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes predictions as lines; a file has its name only when it is complete."""
    if target is None:
        yield lambda values: print(json.dumps(values, ensure_ascii=False), flush=True)
        return
    with atomic_writer(target) as stream:
        yield lambda values: stream.write(f"{json.dumps(values, ensure_ascii=False)}\n".encode())


@contextlib.contextmanager
def _progress(total: int | None, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal and the predictions go elsewhere."""
    if not wanted or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("inputs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=total)
        yield lambda count: bars.update(bar, completed=count)
