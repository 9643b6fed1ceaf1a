"""One pass over files of text: documents to units, units to examples, examples to a job on disk, and its progress."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from electra_fast.data.corpus import DocumentReader, Position, ReadOptions
from electra_fast.data.job import Job
from electra_fast.data.sources import Source
from electra_fast.data.tokenise import BuildOptions, Unit, WorkerError, build_all
from electra_fast.signals import DeferredSignals

UNIT_CHARACTERS = 1 << 18  # what a worker gets at once: about 0.1 s of work
_BYTES_WORTH_A_WORKER = 1 << 20
_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class PrepareProgress:
    """How far a job is. ``stage``: "reading", "training", "tokenising", or "note" (then only ``message`` counts)."""

    stage: str
    bytes_done: int = 0
    bytes_total: int = 0
    documents: int = 0
    tokens: int = 0
    message: str = ""


Listener = Callable[[PrepareProgress], None]


class Reporter:
    """Tells a listener how far the work on ``total_bytes`` is, not too often."""

    def __init__(self, listener: Listener | None, total_bytes: int) -> None:
        self._listener = listener or (lambda _: None)
        self._total_bytes = total_bytes
        self._last = 0.0

    def progress(self, stage: str, bytes_done: int, documents: int, tokens: int, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now < self._last + _SECONDS_BETWEEN_REPORTS and not at_once:
            return
        self._last = now
        self._listener(PrepareProgress(stage, bytes_done, self._total_bytes, documents, tokens))

    def note(self, message: str) -> None:
        self._listener(PrepareProgress("note", message=message))


@dataclass(frozen=True)
class TextPass:
    """Files to the examples of a job, from where the job is to the end of the last file.

    Attributes:
        files: in order.
        read, build: how.
        workers: processes.
        split: name of the split of a document, from its number here and that of its file.
        first_document: added to the numbers of the documents in what is random about their examples.
    """

    files: list[Source]
    read: ReadOptions
    build: BuildOptions
    workers: int
    split: Callable[[int, int], str]
    first_document: int = 0

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self.files)

    def run(self, job: Job, progress: Callable[[], None]) -> None:
        """Work to the end. Ctrl-C and SIGTERM (in the main thread) save the state and then have their usual effect.

        Args:
            job: takes the results in; its ``bytes_done`` is the place in the files.
            progress: called after each result.

        Raises:
            CorpusError: text that cannot be read.
            DiskFullError: no space left.
        """
        with DeferredSignals() as signals:
            results = build_all(self._units(job.position), self.build, self.workers)
            try:
                with contextlib.closing(results):
                    for result, (position, bytes_done) in results:
                        job.add(result, position, bytes_done)
                        progress()
                        if signals.received is not None:
                            break
            except WorkerError:
                if signals.received is None:  # else they were told to stop as we were
                    raise
            if signals.received is not None:
                job.save()
        if signals.received is not None:
            signal.raise_signal(signals.received)
            raise KeyboardInterrupt  # the caller's handler let it pass, but the job is not done

    def _units(self, start: Position) -> Iterator[tuple[Unit, tuple[Position, int]]]:
        reader = DocumentReader(self.files, self.read)
        unit: Unit = []
        size = 0
        position = start
        for part, position in reader.parts(start):
            numbered = replace(part, document=part.document + self.first_document)
            unit.append((self.split(part.document, position.file), numbered))
            size += len(part.text)
            if size >= UNIT_CHARACTERS:
                yield unit, (position, reader.bytes_done)
                unit, size = [], 0
        if unit:
            yield unit, (position, self.bytes)


def usable_workers(asked: int | None, total_bytes: int) -> int:
    """Processes to use: those asked for, else one for each CPU, fewer for little text."""
    if asked is not None:
        return asked
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, total_bytes // _BYTES_WORTH_A_WORKER))
