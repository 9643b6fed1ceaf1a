"""Stopping: closing, deleting, Ctrl-C, a fork and the interpreter's end come back, whatever the threads are doing."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from electra_fast.data.batches import PackedBatches

OPTIONS = {"tokens": 64, "max_sequences": 6, "window": 40, "pad_id": 0}


def threads_of_this_process() -> int:
    return len(os.listdir("/proc/self/task"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")


@needs_proc
@pytest.mark.parametrize("threads", [1, 5])
def test_deleting_and_closing_end_the_threads(corpus: list[Path], threads: int) -> None:
    """The workers are blocked then: the ring is full."""
    gc.collect()
    before = threads_of_this_process()
    for _ in range(20):
        batches = PackedBatches(corpus, **OPTIONS, threads=threads, prefetch=2)
        next(batches)
        assert threads_of_this_process() >= before + threads
        del batches
        assert threads_of_this_process() == before
    batches = PackedBatches(corpus, **OPTIONS, threads=threads)
    batches.close()
    batches.close()
    assert threads_of_this_process() == before


def test_a_closed_reader_says_so(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **OPTIONS)
    next(batches)
    state = batches.state_dict()
    batches.close()
    with pytest.raises(RuntimeError, match="the reader is closed"):
        next(batches)
    assert batches.state_dict() == state
    batches.reset()
    next(batches)


@needs_proc
def test_workers_leave_at_the_end_of_the_stream(corpus: list[Path]) -> None:
    gc.collect()
    before = threads_of_this_process()
    batches = PackedBatches(corpus, **OPTIONS, epochs=1, threads=4)
    assert sum(1 for _ in batches) > 0
    deadline = time.monotonic() + 10
    while threads_of_this_process() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads_of_this_process() == before


def test_several_consumers_get_each_batch_once(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **OPTIONS, epochs=2, threads=2, prefetch=3)
    seen: list[int] = []

    def consume() -> None:
        for batch in batches:
            seen.extend(batch.input_ids[: batch.tokens].tolist())

    consumers = [threading.Thread(target=consume) for _ in range(4)]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join(30)
    assert sorted(seen) == sorted(2 * list(range(100, 100 + len(seen) // 2)))


def run(body: str, corpus: list[Path], expected: int = 0) -> str:
    """Run ``body`` in a fresh interpreter; it must end by itself, with that exit code."""
    prelude = (
        "import os, signal, sys, threading, time\n"
        "from electra_fast.data.batches import PackedBatches\n"
        f"batches = PackedBatches({[str(path) for path in corpus]!r}, tokens=64, pad_id=0, threads=3, prefetch=2)\n"
        "next(batches)\n"
    )
    process = subprocess.run([sys.executable, "-c", prelude + body], capture_output=True, text=True, timeout=120)
    assert process.returncode == expected, process.stderr
    return process.stdout + process.stderr


def test_the_interpreter_ends_with_a_live_reader(corpus: list[Path]) -> None:
    """One in a global, one that nothing will ever delete, and one in the hands of a daemon thread.

    That thread asks the native reader: torch's own ``from_numpy`` may abort where a daemon thread is ended.
    """
    body = """
import ctypes
leaked = PackedBatches(batches._paths, tokens=64, pad_id=0)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(leaked._reader))
def read():
    for batch in batches._reader:
        pass
threading.Thread(target=read, daemon=True).start()
time.sleep(0.05)
print("end")
"""
    assert run(body, corpus).strip() == "end"


def test_ctrl_c_interrupts_a_wait_and_loses_no_batch(write) -> None:
    """A batch takes the worker long enough (one window of a million examples) for the signal to meet the wait."""
    examples = 1_000_000
    path = write("t.shard", np.full(examples, 2), width=4)
    options = {"tokens": 2 * examples, "max_sequences": examples, "window": examples, "pad_id": 0}
    batches = PackedBatches([path], **options, threads=1, prefetch=1)
    next(batches)
    before = batches.state_dict()
    timer = threading.Timer(0.01, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    timer.join()
    assert batches.state_dict() == before
    next(batches)
    assert batches.state_dict()["epoch"] == before["epoch"] + 1


def test_a_fork_neither_hangs_nor_reads(corpus: list[Path]) -> None:
    body = """
child = os.fork()
if child == 0:
    for forbidden in (batches.__next__, batches.state_dict, batches.statistics):
        try:
            forbidden()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(3)
    batches.close()
    paths = batches._paths
    del forbidden, batches   # the last references: the reader's destructor runs here
    own = PackedBatches(paths, tokens=64, pad_id=0)
    next(own)
    del own
    os._exit(0)
_, status = os.waitpid(child, 0)
next(batches)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    run(body, corpus)
