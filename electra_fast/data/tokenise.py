"""Units of text to examples, in worker processes; results come in the order of the text, however many workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TypeVar

import numpy as np
import tokenizers

from electra_fast.data.corpus import DocumentPart
from electra_fast.data.examples import BuiltExamples, ExampleBuilder
from electra_fast.data.shards import Examples, token_dtype
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import ElectraError

LONGEST_LINE = 100_000  # characters; a longer one is cut at spaces, to bound the tokenizer's memory

Unit = list[tuple[str, DocumentPart]]  # (split, part), in the order of the text
Tag = TypeVar("Tag")


class WorkerError(ElectraError):
    """A worker process ended before its work did."""


@dataclass(frozen=True)
class BuildOptions:
    """All a worker needs to know; picklable."""

    tokenizer_json: str
    names: dict[str, str]
    layout: str
    overflow: str
    max_length: int
    seed: int


@dataclass
class SplitResult:
    """What a unit gives to one split."""

    examples: Examples
    documents: int = 0
    lines: int = 0
    unknown_tokens: int = 0
    truncated_tokens: int = 0


@dataclass
class UnitResult:
    """What a unit of text gives. ``long_lines``: lines that were cut because they are longer than `LONGEST_LINE`."""

    splits: dict[str, SplitResult] = field(default_factory=dict)
    long_lines: int = 0


class UnitBuilder:
    """Tokenises a unit and builds its examples; the same in a worker and without workers."""

    def __init__(self, options: BuildOptions) -> None:
        backend = tokenizers.Tokenizer.from_str(options.tokenizer_json)
        self._tokenizer = Tokenizer(backend, options.names)
        self._dtype = token_dtype(self._tokenizer.vocab_size)
        self._builder = ExampleBuilder(
            max_length=options.max_length,
            cls_id=self._tokenizer.cls_id,
            sep_id=self._tokenizer.sep_id,
            layout=options.layout,
            overflow=options.overflow,
            seed=options.seed,
        )

    def build(self, unit: Unit) -> UnitResult:
        lines: list[str] = []
        ends: list[int] = []
        long_lines = 0
        for _, part in unit:
            long_lines += _add_lines(part, lines)
            ends.append(len(lines))
        sentences = self._tokenizer.encode_lines(lines)
        result = UnitResult(long_lines=long_lines)
        built: dict[str, BuiltExamples] = {}
        begin = 0
        for (split, part), end in zip(unit, ends, strict=True):
            counts = result.splits.setdefault(split, SplitResult(Examples.empty(self._dtype)))
            into = built.setdefault(split, BuiltExamples())
            counts.documents += part.part == 0
            counts.lines += end - begin
            self._builder.build(part.document, part.part, sentences[begin:end], into)
            begin = end
        for split, into in built.items():
            tokens = np.array(into.tokens, self._dtype)
            counts = result.splits[split]
            counts.examples = Examples(
                tokens, np.array(into.lengths, np.uint32), np.array(into.first_lengths, np.uint32)
            )
            counts.unknown_tokens = int(np.count_nonzero(tokens == self._tokenizer.unk_id))
            counts.truncated_tokens = into.truncated_tokens
        return result


def _add_lines(part: DocumentPart, lines: list[str]) -> int:
    """Append the lines of a part that hold anything; returns how many were too long and were cut."""
    cut = 0
    for index, line in enumerate(part.text.split("\n")):
        rest = line.strip()
        if len(rest) > LONGEST_LINE and not (index == 0 and part.continues_line):
            cut += 1
        while len(rest) > LONGEST_LINE:
            at = rest.rfind(" ", 1, LONGEST_LINE + 1)
            at = at if at > 0 else LONGEST_LINE
            lines.append(rest[:at])
            rest = rest[at:].lstrip()
        if rest:
            lines.append(rest)
    return cut


def build_all(
    units: Iterable[tuple[Unit, Tag]], options: BuildOptions, workers: int
) -> Generator[tuple[UnitResult, Tag], None, None]:
    """Results of units in order, each with the tag that came with it. ``workers=1`` works in this process.

    Raises:
        WorkerError: a worker died.
    """
    with _single_threaded_tokenizers():
        if workers == 1:
            builder = UnitBuilder(options)
            for unit, tag in units:
                yield builder.build(unit), tag
        else:
            yield from _build_in_workers(units, options, workers)


def _build_in_workers(
    units: Iterable[tuple[Unit, Tag]], options: BuildOptions, workers: int
) -> Iterator[tuple[UnitResult, Tag]]:
    # "spawn": the library's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(options,))
    under_way: deque[tuple[Future[UnitResult], Tag]] = deque()
    try:
        for unit, tag in units:
            with _interrupts_held_back():
                under_way.append((pool.submit(_build, unit), tag))
            if len(under_way) > 2 * workers + 2:
                future, done = under_way.popleft()
                yield future.result(), done
        while under_way:
            future, done = under_way.popleft()
            yield future.result(), done
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process ended unexpectedly. If memory ran out use fewer --workers; in a script of your own put "
            'the call under `if __name__ == "__main__":`, or use workers=1'
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _single_threaded_tokenizers() -> Iterator[None]:
    """One thread a process: the processes are the parallelism. Workers inherit the variable."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started in here never see Ctrl-C, which goes to the whole group: this one decides what comes of it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_worker_builder: UnitBuilder | None = None


def _start_worker(options: BuildOptions) -> None:
    global _worker_builder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_builder = UnitBuilder(options)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers; they would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _build(unit: Unit) -> UnitResult:
    assert _worker_builder is not None
    return _worker_builder.build(unit)
