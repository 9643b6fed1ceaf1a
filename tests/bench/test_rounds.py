"""Rounds: statistics, interleaving, the number of calls and sets of inputs, Ctrl-C."""

import time

import pytest

from electra_fast.bench import rounds
from electra_fast.bench.rounds import Interrupted, Plan, Timing, measure


def test_quantiles_stay_inside_what_was_measured():
    timing = Timing.of([5.0, 1.0, 3.0, 2.0, 4.0], calls=7)
    assert (timing.median, timing.minimum, timing.rounds, timing.calls) == (3.0, 1.0, 5, 7)
    assert timing.low == pytest.approx(1.8)
    assert timing.high == pytest.approx(4.2)


def test_a_single_sample_is_all_of_them():
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 2.0, 1, 1)
    with pytest.raises(ValueError, match="at least one time"):
        Timing.of([])


class Clock:
    """Times that are told instead of taken, and the order in which contenders were called."""

    def __init__(self, seconds: dict) -> None:
        self.seconds, self.order = seconds, []

    def __call__(self, run, sets, calls: int, lead: bool) -> float:
        self.order.append((run, calls, tuple(sets), lead))
        return self.seconds[run]


def test_rounds_are_interleaved_and_every_one_has_fresh_inputs():
    clock = Clock({"a": 0.001, "b": 0.5})
    made = iter(range(100))
    told = []
    plan = Plan(least=3, most=3, seconds=0.0)
    timings = measure({"a": "a", "b": "b"}, lambda: [next(made)], plan, clock, lambda *r: told.append(r))
    assert timings["a"].rounds == timings["b"].rounds == 3
    assert timings["a"].calls == round(rounds.SAMPLE_SECONDS / 0.001)
    assert timings["b"].calls == 1
    assert timings["b"].median == 0.5
    timed = clock.order[4:]  # after the warm-up: twice each
    assert [run for run, *_ in timed] == ["a", "b", "b", "a", "a", "b"]
    assert [sets for _, _, sets, _ in timed] == [(1,), (1,), (2,), (2,), (3,), (3,)]
    assert all(lead == (run == "a") for run, _, _, lead in timed)  # half a second needs no call before it
    assert [done for done, _ in told] == [1, 2, 3]


def test_more_rounds_while_there_is_time(monkeypatch):
    monkeypatch.setattr(rounds, "_SETTLE_SECONDS", 0.0)
    timings = measure({"a": "a"}, lambda: [()], Plan(least=1, most=8, seconds=60.0), Clock({"a": 1.0}))
    assert timings["a"].rounds == 8


def test_an_interrupt_carries_what_was_measured():
    class Stopping(Clock):
        def __call__(self, run, sets, calls, lead):
            if len(self.order) == 6:
                raise KeyboardInterrupt
            return super().__call__(run, sets, calls, lead)

    with pytest.raises(Interrupted) as raised:
        measure({"a": "a", "b": "b"}, lambda: [()], Plan(least=5), Stopping({"a": 1.0, "b": 2.0}))
    assert {name: timing.rounds for name, timing in raised.value.timings.items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("bytes_", "cold", "sets"), [(1000, False, 1), (0, True, 1), (1000, True, 3), (10, True, 24), (10**9, True, 1)]
)
def test_cold_inputs_do_not_fit_into_the_cache(bytes_, cold, sets):
    assert rounds.sets_of_inputs(bytes_, cold, cache_bytes=1000) == sets


def test_calls_rotate_through_the_sets():
    seen = []
    seconds = rounds.timer("cpu")(seen.append, [(1,), (2,), (3,)], 7, False)
    assert seen == [1, 2, 3, 1, 2, 3, 1]
    assert 0 < seconds < 1


def test_the_call_that_leads_is_on_other_inputs_and_not_timed():
    seen = []

    def first_is_slow(value):
        seen.append(value)
        if len(seen) == 1:
            time.sleep(0.05)

    assert rounds.timer("cpu")(first_is_slow, [(1,), (2,), (3,)], 2, True) < 0.02
    assert seen == [3, 1, 2]
