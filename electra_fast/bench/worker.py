"""Contenders in processes of their own: peak memory of one alone, and allocators that have to be there from the start.

The process answers lines of JSON with lines of JSON (`serve`). Memory is measured in a fork of it that has imported
everything and allocated nothing; a contender to be timed is loaded into the process itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import torch

from electra_fast.bench import suites
from electra_fast.bench.case import Case, find
from electra_fast.bench.rounds import timer

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class WorkerError(RuntimeError):
    """The process could not do what it was asked for; the message is its own."""


class Worker:
    """A process that answers requests.

    Args:
        threads: torch's.
        environment: of variables that it has besides this process's.
    """

    def __init__(self, threads: int, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment},
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which closes it
        )

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for the answer.

        Raises: WorkerError with what was raised there, or what a process that died said last.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            raise WorkerError(f"its process ended: {said[-1] if said else 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):  # a pipe may hold what was never read
                stream.close()


class Remote:
    """A contender that was loaded into a worker; timed as a local one is."""

    def __init__(self, worker: Worker, **where: str) -> None:
        self._worker = worker
        worker.ask(do="load", **where)

    def time(self, seed: int, sets: int, calls: int, lead: bool) -> float:
        """Seconds a call, over ``calls`` calls on ``sets`` sets of inputs drawn with ``seed``; lead: see `timer`."""
        return self._worker.ask(do="time", seed=seed, sets=sets, calls=calls, lead=lead)

    def close(self) -> None:
        """End its process."""
        self._worker.close()


def draw(case: Case, shared: Any, seed: int, sets: int) -> list[tuple]:
    """Fresh inputs, the same for the same seed in every process."""
    torch.manual_seed(seed)
    return [case.inputs(shared) for _ in range(sets)]


def peak_growth(case: Case, contender: str) -> float:
    """MiB by which the resident size exceeds, at most during a call, what it was before the contender was built.

    The call measured is the second one: what the first leaves behind (packed weights, compiled code) counts, what it
    needed for making that does not. Weights and inputs that all contenders share do not count.
    """
    chosen = next(c for c in case.contenders if c.name == contender)
    shared = case.setup()
    (inputs,) = draw(case, shared, 0, 1)
    _release()
    before = _resident("VmRSS")
    run = chosen.make(shared)
    run(*inputs)
    _release()
    _CLEAR.write_text("5")  # the highest size so far becomes the present one
    run(*inputs)
    return max(0.0, (_resident("VmHWM") - before) / 1024)


def _release() -> None:
    """Give freed memory back to the system, so that it is not counted as held."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only the GNU C library has it
        ctypes.CDLL(None).malloc_trim(0)


def _resident(name: str) -> int:
    """KiB. Not ru_maxrss, which starts at what the parent had when it forked."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise OSError(f"{_STATUS} has no {name}")


def _in_fork(answers: IO[str], request: dict[str, str], threads: int) -> None:
    """Answer from a child process, so that the next one finds nothing of this one's."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            torch.set_num_threads(threads)
            _answer(answers, lambda: peak_growth(_case(request), request["contender"]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(json.dumps({"error": f"its process ended with status {status}"}), file=answers, flush=True)


def _case(request: dict[str, str]) -> Case:
    return find(suites.cases(request["suite"], request["device"]), request["case"])


def _answer(answers: IO[str], work: Any) -> None:
    try:
        answer = {"result": work()}
    except Exception as error:
        text = str(error).strip().splitlines()
        answer = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
    print(json.dumps(answer), file=answers, flush=True)


class _Loaded:
    """The contender of this process."""

    def __init__(self, request: dict[str, str]) -> None:
        self.case = _case(request)
        self.shared = self.case.setup()
        chosen = next(c for c in self.case.contenders if c.name == request["contender"])
        self.run = chosen.make(self.shared)
        self.drawn: tuple[int, int] = (-1, 0)
        self.inputs: list[tuple] = []

    def time(self, seed: int, sets: int, calls: int, lead: bool) -> float:
        if self.drawn != (seed, sets):
            self.inputs, self.drawn = draw(self.case, self.shared, seed, sets), (seed, sets)
        return timer(self.case.device)(self.run, self.inputs, calls, lead)


def serve(threads: int, requests: IO[str], answers: IO[str]) -> None:
    """Answer until ``requests`` ends: "memory" from forks, then "load" and "time" in this process."""
    for name in ("transformers.models.electra.modeling_electra", "onnxruntime"):
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    loaded: _Loaded | None = None
    for line in requests:
        request = json.loads(line)
        if request["do"] == "memory":
            _in_fork(answers, request, threads)
        elif request["do"] == "load":
            torch.set_num_threads(threads)

            def load(request=request) -> None:
                nonlocal loaded
                loaded = _Loaded(request)

            _answer(answers, load)
        else:
            _answer(answers, lambda r=request: loaded.time(r["seed"], r["sets"], r["calls"], r["lead"]))


def main() -> None:
    """Speak on the standard streams; what contenders print goes to the error stream instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(int(sys.argv[1]), sys.stdin, answers)


if __name__ == "__main__":
    main()
