"""Signals that wait: noted once, then everything as it was before."""

import os
import signal
import threading

import pytest

from electra_fast.signals import DeferredSignals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def heard():
    """What an application's own handlers hear."""
    numbers = []
    before = {number: signal.signal(number, lambda number, frame: numbers.append(number)) for number in ALL}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", ALL)
def test_the_first_is_noted_and_the_second_acts(heard, capfd, first, second):
    with DeferredSignals("wait\n") as signals:
        assert signals.received is None
        os.kill(os.getpid(), first)
        assert (signals.received, heard) == (first, [])
        os.kill(os.getpid(), second)
        assert (signals.received, heard) == (first, [second])
    assert capfd.readouterr().err == "wait\n"
    os.kill(os.getpid(), first)
    assert heard == [second, first]


def test_handlers_are_put_back(heard):
    before = [signal.getsignal(number) for number in ALL]
    with DeferredSignals():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in ALL] == before


def test_other_threads_are_left_alone(heard):
    def work():
        with DeferredSignals() as signals:
            before.append(signal.getsignal(signal.SIGINT))
        received.append(signals.received)

    before, received = [], []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (before, received) == ([signal.getsignal(signal.SIGINT)], [None])
