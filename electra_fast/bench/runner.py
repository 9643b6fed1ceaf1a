"""One case from beginning to end: build contenders, compare outputs, time them in rounds, take peak memory."""

from __future__ import annotations

import gc
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import machine, rounds
from .case import Absent, Case, Contender, relative_error
from .records import ABSENT, FAILED, MEASURED, WRONG, Row
from .roofline import Roof
from .worker import Remote, Worker, WorkerError, draw

Tell = Callable[[str], None]

# What csrc/bindings/allocator.cpp asks of the C library; where that is another one than glibc it does nothing.
_KEPT = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"mmap_max": 0, "trim_threshold": 2**62, "top_pad": 64 << 20, "hugetlb": 1}.items()
)


@dataclass(frozen=True)
class Settings:
    """Of a run: how long to measure a case, whether to take peak memory, the library for the allocator "tcmalloc"."""

    plan: rounds.Plan
    memory: bool = True
    tcmalloc: str = ""


class _Sets(list):
    """Sets of inputs, and the seed that another process draws the same ones with."""

    seed = 0


def run_case(
    case: Case,
    run: str,
    roof: Roof | None,
    settings: Settings,
    memory_worker: Callable[[], Worker] | None = None,
    tell: Tell = lambda text: None,
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Measure a case and hand its rows to ``keep``; on Ctrl-C those of the rounds so far, before it is raised on.

    Args:
        run: the name of the run.
        memory_worker: gives the process that peak memory is taken in (CPU only).
        tell: is told what is being done.
    """
    torch.manual_seed(0)
    shared = case.setup()
    rows: dict[str, Row] = {}
    ready: dict[str, Any] = {}
    truth: list[torch.Tensor] | None = None
    name = case.contenders[0].name
    try:
        if case.truth is not None:
            _, truth = _build(case, Contender("truth", case.truth), shared)
            name = "the truth"
        for contender in case.contenders:
            tell(f"building {contender.name}")
            row = Row(run, case.suite, case.name, contender.name, case.dtype, case.shape, contender.setting)
            row = replace(row, allocator=contender.allocator, ours=contender.ours, bound=case.bound, device=case.device)
            try:
                callable_, outputs = _build(case, contender, shared)
                if truth is None:
                    truth, name = outputs, contender.name
                error = relative_error(outputs, truth)
                del outputs
                rows[contender.name] = replace(row, error=error)
                limit = case.tolerance if contender.tolerance is None else contender.tolerance
                if error > limit:
                    reason = f"its output differs from {name}'s by {error:.1e}, more than {limit:.0e}"
                    rows[contender.name] = replace(row, status=WRONG, error=error, reason=reason)
                    continue
                ready[contender.name] = _placed(case, contender, callable_, settings)
            except Absent as reason:
                rows[contender.name] = replace(row, status=ABSENT, reason=str(reason))
            except Exception as error:
                rows[contender.name] = replace(row, status=FAILED, reason=_first_line(error))
                traceback.clear_frames(error.__traceback__)
        truth = None
        try:
            timings = _time(case, ready, shared, settings, tell)
        except rounds.Interrupted as interrupted:
            keep(_measured(case, rows, interrupted.timings, roof))
            raise KeyboardInterrupt from None
        memory: dict[str, float] = {}
        if case.device.startswith("cuda") and settings.memory and case.memory:
            memory = {name: _cuda_memory(case, call, shared) for name, call in ready.items()}
    finally:
        for call in ready.values():
            if isinstance(call, Remote):
                call.close()
        ready.clear()
        del shared
        gc.collect()
    if memory_worker is not None and settings.memory and case.memory and not case.device.startswith("cuda"):
        memory = _memory(
            case, [name for name in timings if rows[name].allocator in ("", "system")], memory_worker, tell
        )
    measured = _measured(case, rows, timings, roof)
    measured = [replace(row, peak_memory_mib=memory.get(row.contender)) for row in measured]
    keep(measured)
    return measured


def _build(case: Case, contender: Contender, shared: Any) -> tuple[Callable[..., Any], list[torch.Tensor]]:
    """What is timed, and the outputs that are compared, on inputs that are equal for all."""
    (inputs,) = draw(case, shared, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers, about themselves
        call = contender.make(shared)
        compared = contender.comparable(shared) if contender.comparable else call
        torch.manual_seed(0)
        outputs = [t.detach().clone() for t in case.outputs(compared(*inputs), inputs)]
        if compared is not call:
            call(*inputs)
    return call, outputs


def _placed(
    case: Case, contender: Contender, call: Callable[..., Any], settings: Settings
) -> Callable[..., Any] | Remote:
    """The contender where it is to run: here, or in a process of its own."""
    if not contender.allocator:
        return call
    worker = Worker(torch.get_num_threads(), _allocator(contender.allocator, settings))
    try:
        return Remote(worker, suite=case.suite, device=case.device, case=case.name, contender=contender.name)
    except BaseException:
        worker.close()
        raise


def _allocator(name: str, settings: Settings) -> dict[str, str]:
    """The environment that gives a process this allocator."""
    if name == "system":
        return {}
    if name == "kept":
        return {"GLIBC_TUNABLES": _KEPT}
    if name != "tcmalloc":
        raise ValueError(f"allocator must be '', 'system', 'kept' or 'tcmalloc', got {name!r}")
    if not settings.tcmalloc:
        raise Absent("libtcmalloc was not found: install libtcmalloc-minimal4, or name it with --tcmalloc")
    return {"LD_PRELOAD": settings.tcmalloc}


def _time(case: Case, ready: dict[str, Any], shared: Any, settings: Settings, tell: Tell) -> dict[str, rounds.Timing]:
    count = rounds.sets_of_inputs(case.bytes, case.cold, machine.last_level_cache_bytes())
    seed = 0

    def fresh() -> _Sets:
        nonlocal seed
        seed += 1
        sets = _Sets(draw(case, shared, seed, count))
        sets.seed = seed
        return sets

    local = rounds.timer(case.device)

    def time_calls(call: Any, sets: Any, calls: int, lead: bool) -> float:
        if isinstance(call, Remote):
            return call.time(sets.seed, len(sets), calls, lead)
        return local(call, sets, calls, lead)

    def on_round(done: int, most: int) -> None:
        tell(f"round {done} of {most}")

    if not ready:
        return {}
    tell("warming up")
    return rounds.measure(ready, fresh, settings.plan, time_calls, on_round)


def _measured(case: Case, rows: dict[str, Row], timings: dict[str, rounds.Timing], roof: Roof | None) -> list[Row]:
    """Rows with their figures; those that were ready but never timed are left out."""
    clock, load = machine.clock_mhz(case.device), machine.load_average()
    done = []
    for name, row in rows.items():
        if row.status != MEASURED:
            done.append(row)
        elif name in timings:
            t = timings[name]
            gflops, gbytes = case.flops / t.median / 1e9, case.bytes / t.median / 1e9
            rate = gflops if case.bound == "matrix" else gbytes
            done.append(
                replace(
                    row,
                    median_ms=t.median * 1e3,
                    q20_ms=t.low * 1e3,
                    q80_ms=t.high * 1e3,
                    minimum_ms=t.minimum * 1e3,
                    rounds=t.rounds,
                    calls=t.calls,
                    gflops=gflops,
                    gbytes=gbytes,
                    share=roof.share(case.bound, case.dtype, rate) if roof else 0.0,
                    tokens_per_second=case.tokens / t.median,
                    clock_mhz=clock,
                    load_average=load,
                )
            )
    return done


def _memory(case: Case, names: list[str], worker: Callable[[], Worker], tell: Tell) -> dict[str, float]:
    taken = {}
    for name in names:
        tell(f"peak memory of {name}")
        try:
            where = {"suite": case.suite, "device": case.device, "case": case.name, "contender": name}
            taken[name] = worker().ask(do="memory", **where)
        except WorkerError as error:
            tell(f"no peak memory of {name}: {error}")
    return taken


def _cuda_memory(case: Case, call: Callable[..., Any], shared: Any) -> float:
    """MiB that a call takes beyond what is there."""
    (inputs,) = draw(case, shared, 0, 1)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(*inputs)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
