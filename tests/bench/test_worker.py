"""Contenders in processes of their own: peak memory, timing, and processes that cannot or do not answer."""

import io
import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from electra_fast.bench import runner, suites, worker
from electra_fast.bench.case import Case, Contender
from electra_fast.bench.rounds import Plan
from electra_fast.bench.worker import Remote, Worker, WorkerError

if not sys.platform.startswith("linux"):
    pytest.skip("peak memory is read from /proc", allow_module_level=True)

WHERE = {"suite": "replace_tokens", "device": "cpu", "case": "16384 tokens", "contender": "electra-fast"}
MEBIBYTES = 64


@pytest.fixture(scope="module")
def process():
    made = Worker(1)
    yield made
    made.close()


def test_memory_time_and_errors_over_the_pipe(process):
    peak = process.ask(do="memory", **WHERE)
    assert 0 <= peak < 100
    remote = Remote(process, **WHERE)
    assert 0 < remote.time(seed=1, sets=2, calls=3, lead=True) < 5
    assert 0 < remote.time(seed=1, sets=2, calls=1, lead=False) < 5
    with pytest.raises(WorkerError, match="there is no case 'nothing'"):
        process.ask(do="memory", **{**WHERE, "case": "nothing"})


def test_a_process_that_died_is_noticed():
    broken = Worker(1)
    broken._process.kill()
    broken._process.wait()
    with pytest.raises(WorkerError, match="its process ended"):
        broken.ask(do="memory", **WHERE)
    broken.close()


def test_growth_is_what_a_call_needs():
    """One contender keeps a buffer, the other needs it for the call alone, the third needs nothing."""

    def touched() -> torch.Tensor:
        return torch.ones(MEBIBYTES << 18)

    def keeps(shared):
        buffer = touched()
        return lambda x: buffer[0] + x

    contenders = (
        Contender("nothing", lambda shared: lambda x: x),
        Contender("call", lambda shared: lambda x: touched()[0] + x),
        Contender("keeps", keeps),
    )
    case = Case("toy", "memory", "float32", contenders, lambda shared: (torch.zeros(1),))
    grown = {c.name: worker.peak_growth(case, c.name) for c in contenders}
    assert grown["nothing"] < 4
    assert grown["call"] == pytest.approx(MEBIBYTES, abs=4)
    assert grown["keeps"] == pytest.approx(MEBIBYTES, abs=4)


def test_inputs_are_the_same_for_the_same_seed():
    case = suites.cases("replace_tokens", "cpu", "quick")[0]
    first, second = worker.draw(case, None, 3, 2)
    again, _ = worker.draw(case, None, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])


def test_serving_in_this_process(monkeypatch):
    """The loop itself, line by line."""
    loads = {"do": "load", **WHERE}
    requests = [
        loads,
        {"do": "time", "seed": 1, "sets": 1, "calls": 1, "lead": True},
        {**loads, "contender": "electra"},
    ]
    answers = io.StringIO()
    threads = torch.get_num_threads()
    worker.serve(threads, io.StringIO("".join(json.dumps(r) + "\n" for r in requests)), answers)
    loaded, timed, failed = map(json.loads, answers.getvalue().splitlines())
    assert loaded == {"result": None}
    assert timed["result"] > 0
    assert failed["error"].startswith("StopIteration")


@pytest.mark.parametrize(
    ("allocator", "environment", "memory"),
    [
        ("tcmalloc", {"LD_PRELOAD": "libc.so"}, None),
        ("kept", {"GLIBC_TUNABLES": runner._KEPT}, None),
        ("system", {}, 0.001),
    ],
)
def test_another_allocator_runs_in_a_process_of_its_own(allocator, environment, memory, toy, monkeypatch):
    made = suites.cases("replace_tokens", "cpu", "quick")[0]
    contenders = (*made.contenders, Contender("torch, elsewhere", made.contenders[0].make, allocator=allocator))
    case = Case(made.suite, made.name, made.dtype, contenders, made.inputs, select=made.select)
    asked = []

    class Fake(Worker):
        def __init__(self, threads, environment=None):
            asked.append(environment)

        def ask(self, **request):
            asked.append(request["do"])
            return 0.001

        def close(self):
            asked.append("close")

    monkeypatch.setattr(runner, "Worker", Fake)
    settings = runner.Settings(Plan(least=1, most=1, seconds=0.0), memory=True, tcmalloc="libc.so")
    rows = runner.run_case(case, "r", None, settings, lambda: Fake(1))
    assert rows[-1].median_ms == pytest.approx(1.0)
    assert rows[-1].allocator == allocator
    assert rows[-1].peak_memory_mib == memory
    assert rows[0].peak_memory_mib == 0.001
    assert asked[:2] == [environment, "load"]
    assert asked.count("close") == 1


def test_a_process_that_keeps_freed_memory_maps_none_anew():
    """The C library understands what it is told: a large buffer made again and again faults only at first."""
    script = """
import resource, torch
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(40 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(12)
print(faults(12))
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("not the GNU C library")

    def count(**environment: str) -> int:
        run = [sys.executable, "-c", script]
        return int(subprocess.run(run, env=os.environ | environment, capture_output=True, text=True, check=True).stdout)

    assert count(GLIBC_TUNABLES=runner._KEPT) < count() / 10
