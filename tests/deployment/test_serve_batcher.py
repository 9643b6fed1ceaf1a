"""The batcher of the server, with models that only count: what is computed together, when, and what is not at all."""

import asyncio
import threading
import time
from dataclasses import dataclass

import pytest

from electra_fast.workflows.deployment.serve.batcher import Batcher, ClosedError, QueueFullError


@dataclass
class Request:
    """Rows that are numbers, of given lengths."""

    rows: list[int]
    lengths: list[int]


def request(*rows, length=10):
    return Request(list(rows), [length] * len(rows))


class Doubling:
    """Doubles each row and answers with the sum; a row of -1 cannot be computed. Waits where it is told to."""

    def __init__(self):
        self.batches = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.began = threading.Semaphore(0)

    def compute(self, rows):
        self.batches.append(list(rows))
        self.began.release()
        assert self.may_go.wait(10)
        if -1 in rows:
            raise RuntimeError("no such row")
        return [2 * row for row in rows]

    def answer(self, requests):
        return [sum(outputs) for _, outputs in requests]


@pytest.fixture
def model():
    return Doubling()


@pytest.fixture
def started(model):
    """A function that makes a running batcher."""
    made = []

    def start(max_tokens=100, max_wait=0.0, capacity=100, observe=lambda batch: None):
        batcher = Batcher(model, max_tokens=max_tokens, max_wait=max_wait, capacity=capacity, observe=observe)
        batcher.start()
        made.append(batcher)
        return batcher

    yield start
    model.may_go.set()
    for batcher in made:
        batcher.close()
        batcher.join(10)
        assert not batcher.alive


async def hold(batcher, model):
    """Occupy the thread with a request of its own; it goes on with ``model.may_go``."""
    while model.began.acquire(blocking=False):
        pass  # batches before, for which nobody waited to begin
    model.may_go.clear()
    first = batcher.submit(request(0))
    await asyncio.to_thread(model.began.acquire)
    return first


def test_every_request_gets_its_own_answer(started, model):
    async def run():
        batcher = started()
        return await asyncio.gather(*(batcher.submit(request(n, n + 100)) for n in range(200 // 4)))

    assert asyncio.run(run()) == [4 * n + 200 for n in range(50)]
    assert sum(map(len, model.batches)) == 100


def test_batches_are_filled_by_tokens_in_the_order_of_arrival(started, model):
    async def run():
        batcher = started(max_tokens=30)
        first = await hold(batcher, model)
        rest = [
            batcher.submit(r) for r in (request(1), request(2, 3, 4, 5), request(6), Request([7], [99]), request(8))
        ]
        model.may_go.set()
        return await asyncio.gather(first, *rest)

    assert asyncio.run(run()) == [0, 2, 28, 12, 14, 16]
    # Three rows of 10 tokens a batch; one request is spread over two; a row beyond the budget goes alone.
    assert model.batches == [[0], [1, 2, 3], [4, 5, 6], [7], [8]]


async def three_together(batcher, model):
    """Have the last batch be one of three requests."""
    first = await hold(batcher, model)
    waiting = [batcher.submit(request(n)) for n in range(3)]
    model.may_go.set()
    await asyncio.gather(first, *waiting)
    assert model.batches[-1] == [0, 1, 2]


def test_a_lone_client_does_not_wait_and_many_wait_for_each_other(started, model):
    async def run():
        batcher = started(max_wait=600.0)
        for n in range(3):
            await batcher.submit(request(n))
        await three_together(batcher, model)
        waiting = [batcher.submit(request(4)), batcher.submit(request(5))]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 2
        waiting.append(batcher.submit(request(6)))
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [8, 10, 12]
    assert model.batches[:3] == [[0], [1], [2]]
    assert model.batches[-1] == [4, 5, 6]


def test_nobody_waits_longer_than_max_wait(started, model):
    async def run():
        batcher = started(max_wait=0.2)
        await three_together(batcher, model)
        began = time.perf_counter()
        await batcher.submit(request(4))
        return time.perf_counter() - began

    assert asyncio.run(run()) > 0.15
    assert model.batches[-1] == [4]


def test_a_full_queue_refuses_and_says_when_to_come_back(started, model):
    async def run():
        batcher = started(capacity=3)
        first = await hold(batcher, model)
        waiting = [batcher.submit(request(1, 2)), batcher.submit(request(3))]
        assert batcher.waiting == 3
        with pytest.raises(QueueFullError, match="try again") as refused:
            batcher.submit(request(4))
        assert refused.value.retry_after >= 1
        model.may_go.set()
        await asyncio.gather(first, *waiting)
        assert batcher.waiting == 0
        return await batcher.submit(request(5))

    assert asyncio.run(run()) == 10


def test_what_nobody_waits_for_is_not_computed(started, model):
    async def run():
        batcher = started(max_tokens=20)
        first = await hold(batcher, model)
        gone, split, kept = batcher.submit(request(1)), batcher.submit(request(2, 3, 4)), batcher.submit(request(5))
        gone.cancel()
        split.set_exception(TimeoutError())
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        model.may_go.set()
        with pytest.raises(TimeoutError):
            await split
        return await asyncio.gather(first, kept)

    assert asyncio.run(run()) == [0, 10]
    assert model.batches == [[0], [5]]


@pytest.mark.parametrize("max_tokens", [30, 100])
def test_only_the_request_that_cannot_be_computed_fails(started, model, max_tokens, caplog):
    async def run():
        batcher = started(max_tokens=max_tokens)
        first = await hold(batcher, model)
        waiting = [batcher.submit(r) for r in (request(1), request(12, 11, -1, 15, 16), request(2))]
        model.may_go.set()
        answers = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert batcher.waiting == 0
        return answers

    answers = asyncio.run(run())
    assert [answers[0], answers[1], answers[3]] == [0, 2, 4]
    assert str(answers[2]) == "no such row"
    assert "could not be computed" in caplog.text


def test_close_computes_what_was_taken_and_takes_no_more(started, model):
    async def run():
        batcher = started(max_tokens=10)
        first = await hold(batcher, model)
        waiting = [batcher.submit(request(n)) for n in range(5)]
        batcher.close()
        with pytest.raises(ClosedError):
            batcher.submit(request(9))
        model.may_go.set()
        return await asyncio.gather(first, *waiting)

    assert asyncio.run(run()) == [0, 0, 2, 4, 6, 8]


def test_batches_are_reported(started, model):
    seen = []

    async def run():
        batcher = started(observe=seen.append)
        await batcher.submit(request(1, 2, 3))

    asyncio.run(run())
    assert [(batch.requests, batch.rows, batch.tokens) for batch in seen] == [(1, 3, 30)]
    assert seen[0].seconds > 0


def test_a_request_without_rows_is_a_mistake(started):
    async def run():
        started().submit(request())

    with pytest.raises(ValueError, match="at least one row"):
        asyncio.run(run())
