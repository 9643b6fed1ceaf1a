"""Dynamic batching: requests of many clients wait in one bounded queue, and one thread computes them in batches.

The event loop puts requests in; the thread takes as many rows from the front as fit into a budget of tokens, so that it
never waits for the event loop while there is something to compute. The encoder computes no padding, hence tokens, not
rows, are what a batch costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

_log = logging.getLogger(__name__)


class Work(Protocol):
    """One request, made into rows: sequences of so many tokens each."""

    rows: Sequence[Any]
    lengths: Sequence[int]


Request = TypeVar("Request", bound=Work)


class Model(Protocol[Request]):
    """What computes; called from the batcher's thread alone."""

    def compute(self, rows: list[Any]) -> list[Any]:
        """An output for each row."""

    def answer(self, requests: list[tuple[Request, list[Any]]]) -> list[Any]:
        """The answers to requests, of which each comes with the outputs of its rows."""


class QueueFullError(Exception):
    """No room for a request. ``retry_after``: seconds after which there should be."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full, try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The batcher takes no requests any more."""


@dataclass(frozen=True)
class Batch:
    """What was computed: rows and their tokens, how many requests they were of, and the seconds that it took."""

    requests: int
    rows: int
    tokens: int
    seconds: float


@dataclass(eq=False)
class _Waiting(Generic[Request]):
    """A request in the queue. The event loop owns ``result``, the thread everything else once the request is queued."""

    work: Request
    arrived: float
    result: asyncio.Future
    taken: int = 0  # rows that have gone into a batch
    outputs: list[Any] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.work.lengths) - self.taken


class Batcher(Generic[Request]):
    """Computes requests in batches of up to ``max_tokens`` tokens, in the order in which they come.

    A batch leaves as soon as the thread is free and one of these holds: it is full; it has as many requests as the last
    one (so a lone client never waits, and many clients that ask again and again are computed together); its first
    request has waited ``max_wait`` seconds. A request of many rows may be spread over several batches.

    A request whose caller stopped waiting (cancelled, timed out) leaves the queue uncomputed. If a batch fails, its
    requests are computed again one by one, so that only those that cause it fail.

    Args:
        model: what computes.
        max_tokens: of a batch; a longer row makes a batch of its own.
        max_wait: seconds that a request may wait for others to join it.
        capacity: rows that may wait; those in computation do not count.
        observe: is told of every batch, from the thread.
    """

    def __init__(
        self,
        model: Model[Request],
        *,
        max_tokens: int,
        max_wait: float,
        capacity: int,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self._model, self._observe = model, observe
        self._max_tokens, self._max_wait, self.capacity = max_tokens, max_wait, capacity
        self._queue: deque[_Waiting[Request]] = deque()
        self._rows = self._tokens = 0  # waiting
        self._last_requests = 1
        self._seconds_per_token = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread; from then on requests may be submitted, all from one event loop."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, work: Request) -> asyncio.Future:
        """The answer to a request, which has at least one row, or whatever the model raised on it.

        To cancel the future, or to set it, takes the request out of the queue.

        Raises:
            QueueFullError: no room. ClosedError: `close` was called.
        """
        count, tokens = len(work.lengths), sum(work.lengths)
        if count == 0:
            raise ValueError("submit: work must have at least one row, got none")
        entry = _Waiting(work, time.monotonic(), asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed:
                raise ClosedError
            if self._rows + count > self.capacity:
                raise QueueFullError(max(1.0, (self._tokens + tokens) * self._seconds_per_token))
            self._queue.append(entry)
            self._rows += count
            self._tokens += tokens
            self._changed.notify()
        entry.result.add_done_callback(lambda _: self._forget(entry))
        return entry.result

    def close(self) -> None:
        """Take no more requests; the thread ends when those that are queued have been computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end, after `close`."""
        self._thread.join(timeout)

    def _forget(self, entry: _Waiting[Request]) -> None:
        if not entry.left:
            return
        with self._changed:
            if entry in self._queue:
                self._queue.remove(entry)
                self._count_out(entry, entry.left)

    def _count_out(self, entry: _Waiting[Request], rows: int) -> int:
        """Take rows of a request out of what waits; returns their tokens."""
        tokens = sum(entry.work.lengths[entry.taken : entry.taken + rows])
        entry.taken += rows
        self._rows -= rows
        self._tokens -= tokens
        return tokens

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                self._changed.wait_for(self._ready, self._queue[0].arrived + self._max_wait - time.monotonic())
                parts = self._take()
            if parts:
                self._compute(parts)

    def _ready(self) -> bool:
        """Whether nothing is gained by waiting for more requests. (None may be left, if their callers went away.)"""
        full = self._tokens >= self._max_tokens
        return full or len(self._queue) >= self._last_requests or self._closed or not self._queue

    def _take(self) -> list[tuple[_Waiting[Request], slice]]:
        """The next batch: which rows of which requests."""
        parts = []
        budget = self._max_tokens
        while self._queue:
            entry = self._queue[0]
            lengths, first = entry.work.lengths, entry.taken
            last = first
            while last < len(lengths) and (lengths[last] <= budget or not (parts or last > first)):
                budget -= lengths[last]
                last += 1
            if last == first:
                break
            self._count_out(entry, last - first)
            parts.append((entry, slice(first, last)))
            if entry.left:
                break
            self._queue.popleft()
        if parts:
            self._last_requests = len(parts)
        return parts

    def _compute(self, parts: list[tuple[_Waiting[Request], slice]]) -> None:
        rows = [row for entry, part in parts for row in entry.work.rows[part]]
        tokens = sum(sum(entry.work.lengths[part]) for entry, part in parts)
        began = time.perf_counter()
        try:
            outputs = iter(self._model.compute(rows))
            for entry, part in parts:
                entry.outputs += [next(outputs) for _ in range(part.stop - part.start)]
            done = [entry for entry, _ in parts if len(entry.outputs) == len(entry.work.lengths)]
            answers = self._model.answer([(entry.work, entry.outputs) for entry in done]) if done else []
        except Exception as error:
            self._fail(parts, error)
            return
        seconds = time.perf_counter() - began
        self._seconds_per_token = 0.8 * (self._seconds_per_token or seconds / tokens) + 0.2 * seconds / tokens
        self._observe(Batch(len(parts), len(rows), tokens, seconds))
        self._deliver([(entry.result, answer, None) for entry, answer in zip(done, answers, strict=True)])

    def _fail(self, parts: list[tuple[_Waiting[Request], slice]], error: Exception) -> None:
        """Find the requests that cannot be computed by computing each alone; they get the error."""
        for entry, part in parts:
            del entry.outputs[part.start :]
        if len(parts) > 1:
            for one in parts:
                self._compute([one])
            return
        ((entry, _),) = parts
        _log.error("a request could not be computed", exc_info=error)
        with self._changed:
            if self._queue and self._queue[0] is entry:  # the rest of its rows
                self._queue.popleft()
                self._count_out(entry, entry.left)
        self._deliver([(entry.result, None, error)])

    def _deliver(self, results: list[tuple[asyncio.Future, Any, Exception | None]]) -> None:
        if not results:
            return
        loop = results[0][0].get_loop()
        with contextlib.suppress(RuntimeError):  # a server that was told to stop at once has closed its loop
            loop.call_soon_threadsafe(_resolve, results)


def _resolve(results: list[tuple[asyncio.Future, Any, Exception | None]]) -> None:
    for future, answer, error in results:
        if future.done():  # nobody waits any more
            continue
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)
