"""Interleaved timing: every round gives every contender the same fresh inputs, so that what disturbs one disturbs all.

A sample is the mean of as many calls as fill `SAMPLE_SECONDS`, after one that does not count: a contender's turn comes
after those of all others, seconds after its last one, and its first call gets back the pages, threads and clocks that
they took. Figures are medians and 20 % and 80 % quantiles of the samples. Warm-up (first calls, compilation, packing of
weights, choice of the number of calls) comes before the rounds.
The order of the contenders moves on by one from round to round.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

SAMPLE_SECONDS = 0.03
_SETTLE_SECONDS = 0.003  # for the spinning threads of whoever ran before
_LEAD_BELOW = 0.5  # seconds a call: a longer one is not called once more, what it begins with matters little
_COLD_MULTIPLE = 3  # of the last-level cache
_MOST_SETS = 24

Run = Callable[..., Any]


@dataclass(frozen=True)
class Plan:
    """How long to measure: at least ``least`` rounds, at most ``most``, and no new round after ``seconds``."""

    least: int = 5
    most: int = 25
    seconds: float = 10.0


@dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    median: float
    low: float
    high: float
    minimum: float
    rounds: int
    calls: int

    @staticmethod
    def of(samples: list[float], calls: int = 1) -> Timing:
        """Median, 20 % and 80 % quantile (inclusive: never outside of what was measured), minimum."""
        if not samples:
            raise ValueError("Timing.of: samples must hold at least one time, got none")
        cuts = statistics.quantiles(samples, n=5, method="inclusive") if len(samples) > 1 else [samples[0]] * 4
        return Timing(statistics.median(samples), cuts[0], cuts[3], min(samples), len(samples), calls)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C between rounds; ``timings`` has what was measured until then."""

    def __init__(self, timings: dict[str, Timing]) -> None:
        super().__init__()
        self.timings = timings


def sets_of_inputs(bytes_per_call: float, cold: bool, cache_bytes: int) -> int:
    """How many sets of inputs a round rotates through: 1, or as many as do not fit into the last-level cache."""
    if not cold or bytes_per_call <= 0:
        return 1
    return max(1, min(_MOST_SETS, math.ceil(_COLD_MULTIPLE * cache_bytes / bytes_per_call)))


def timer(device: str) -> Callable[[Run, list[tuple], int, bool], float]:
    """``time(run, sets, calls, lead)``: seconds a call, over ``calls`` calls that rotate through the sets of inputs.

    With ``lead`` one that does not count comes before them, on the last set, which the first timed call does not read.
    """
    return _time_cuda if device.startswith("cuda") else _time_cpu


def _time_cpu(run: Run, sets: list[tuple], calls: int, lead: bool) -> float:
    if lead:
        run(*sets[-1])
    begin = time.perf_counter()
    for index in range(calls):
        run(*sets[index % len(sets)])
    return (time.perf_counter() - begin) / calls


def _time_cuda(run: Run, sets: list[tuple], calls: int, lead: bool) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if lead:
        run(*sets[-1])
    torch.cuda.synchronize()
    begin.record()
    for index in range(calls):
        run(*sets[index % len(sets)])
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


def calls_a_sample(seconds_a_call: float) -> int:
    """So many that a sample takes `SAMPLE_SECONDS`, at most a thousand."""
    return max(1, min(1000, round(SAMPLE_SECONDS / max(seconds_a_call, 1e-9))))


def measure(
    contenders: dict[str, Run],
    fresh: Callable[[], list[tuple]],
    plan: Plan,
    time_calls: Callable[[Run, list[tuple], int, bool], float],
    on_round: Callable[[int, int], None] = lambda done, most: None,
) -> dict[str, Timing]:
    """Time all contenders in interleaved rounds.

    Args:
        contenders: by name; each has run before (its output was compared).
        fresh: makes the sets of inputs of a round.
        time_calls: `timer`'s.
        on_round: told the rounds done, and how many there will be as far as is known.

    Raises:
        Interrupted: Ctrl-C; it carries the timings so far.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    calls: dict[str, int] = {}
    lead: dict[str, bool] = {}
    try:
        warm = fresh()
        for name, run in contenders.items():
            once = min(time_calls(run, warm, 1, False) for _ in range(2))
            calls[name], lead[name] = calls_a_sample(once), once < _LEAD_BELOW
        begin, round_ = time.monotonic(), 0
        while round_ < plan.most and (round_ < plan.least or time.monotonic() - begin < plan.seconds):
            sets = fresh()
            for name in _rotated(list(contenders), round_):
                time.sleep(_SETTLE_SECONDS)
                samples[name].append(time_calls(contenders[name], sets, calls[name], lead[name]))
            round_ += 1
            on_round(round_, _expected(round_, time.monotonic() - begin, plan))
    except KeyboardInterrupt:
        raise Interrupted(_timings(samples, calls)) from None
    return _timings(samples, calls)


def _timings(samples: dict[str, list[float]], calls: dict[str, int]) -> dict[str, Timing]:
    return {name: Timing.of(values, calls[name]) for name, values in samples.items() if values}


def _rotated(names: list[str], by: int) -> Iterable[str]:
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


def _expected(done: int, seconds: float, plan: Plan) -> int:
    """Rounds in all, by the speed so far."""
    return max(done, plan.least, min(plan.most, math.ceil(plan.seconds * done / max(seconds, 1e-9))))
