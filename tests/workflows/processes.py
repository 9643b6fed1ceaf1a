"""Processes of a run for tests, forked from one that has imported everything: ready in 0.1 s rather than in 3."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

from electra_fast.matrix_peak import MatrixPeak
from electra_fast.workflows.pretraining import finish, loop

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch.distributed.checkpoint",
        "torch.distributed.elastic.agent.server.local_elastic_agent",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
        "electra_fast.workflows.pretraining.run",
    ]
)


def start(size, log, call, *args):
    """``size`` processes that ``call(*args)`` under torchrun's environment variables; what they say goes to ``log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        CONTEXT.Process(target=_main, args=(rank, size, port, Path(log), call, args), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def finished(processes, seconds=60):
    """Their exit codes, once all have ended."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def run(size, log, call, *args):
    """As `start`, to a good end."""
    codes = finished(start(size, log, call, *args))
    assert codes == [0] * size, (codes, Path(log).read_text())


def _main(rank, size, port, log, call, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    quick(log)
    call(*args)


def quick(log):
    """One thread, no picture and no measurement of the machine, which take longer than a tiny run."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(1)
    finish.draw_curves = lambda records, path: bool(path.write_bytes(b"")) or True
    loop.matrix_peak = lambda device, dtype: MatrixPeak(1e11, "assumed")
