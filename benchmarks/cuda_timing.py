"""How CUDA benchmarks measure: replays of a captured graph, so that launches cost nothing, with a cold or a warm L2;
and eager calls one after another, where they cost what they cost.

Cold: before each call a buffer larger than any L2 is written; a graph with the writing alone is timed as well, and its
time taken off. All figures are medians with 20 % and 80 % quantiles over the replays, which are interleaved between
variants.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

FLUSH_BYTES = 256 << 20
CALLS = 4  # of a warm graph


@dataclass(frozen=True)
class Time:
    """Milliseconds a call."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: list[float]) -> Time:
        cuts = statistics.quantiles(samples, n=5)
        return Time(statistics.median(samples), cuts[0], cuts[3])


@functools.cache
def stream() -> torch.cuda.Stream:
    """The one that everything here runs and is captured on. Autograd runs a backward on the stream of its forward, so a
    graph of a backward alone needs its forward to have run on it: ``with torch.cuda.stream(cuda_timing.stream()):``."""
    return torch.cuda.Stream()


def capture(function: Callable[[], object]) -> torch.cuda.CUDAGraph:
    with torch.cuda.stream(stream()):
        for _ in range(3):
            function()
        stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream()):
            function()
    return graph


def replay(graph: torch.cuda.CUDAGraph) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def in_graphs(variants: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, dict[str, Time]]:
    """``{variant: {"cold": …, "warm": …}}``. A variant that cannot be captured is left out, with a line about it."""
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    flush = capture(lambda: buffer.fill_(1))
    graphs = {}
    for name, function in variants.items():

        def after_flush(function=function) -> None:
            buffer.fill_(1)
            function()

        def several(function=function) -> None:
            for _ in range(CALLS):
                function()

        try:
            graphs[name] = capture(after_flush), capture(several)
        except RuntimeError as error:
            print(f"  {name}: not captured: {str(error).splitlines()[0]}", flush=True)
    samples: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in graphs}
    for _ in range(rounds):
        for name, (cold, warm) in graphs.items():
            alone = replay(flush)
            samples[name]["cold"].append(max(replay(cold) - alone, 1e-4))
            samples[name]["warm"].append(replay(warm) / CALLS)
    return {name: {kind: Time.of(values) for kind, values in kinds.items()} for name, kinds in samples.items()}


def eager(function: Callable[[], object], calls: int = 20, rounds: int = 5) -> Time:
    """Calls from Python one after another, the clock stopped when the last has finished."""
    for _ in range(3):
        function()
    samples = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - begin) / calls * 1e3)
    return Time.of(samples)


def copy_bandwidth() -> float:
    """GB/s of a copy of 1 GiB, read and written: what memory-bound kernels are measured against."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    graph = capture(lambda: target.copy_(source))
    return 2 * source.numel() / min(replay(graph) for _ in range(10)) / 1e6
