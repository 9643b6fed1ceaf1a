"""Processes of a run for tests, forked from one that has imported everything: ready in 0.1 s rather than in 3."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch

from electra_fast.matrix_peak import MatrixPeak
from electra_fast.workflows.pretraining import finish, loop, pretrain
from electra_fast.workflows.pretraining.ranks import RESTARTS

CLOCK = ("seconds", "tokens_per_second", "memory_mb", "tflops", "mfu", "data_wait")  # figures that depend on it
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


def records(output):
    """All records of a run."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def figures(output):
    """All records of a run, without what depends on the clock."""
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records(output)]


def start(size, log, call, *args):
    """``size`` processes that ``call(*args)`` under torchrun's environment variables; what they say goes to ``log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=_main, args=(rank, size, port, Path(log), call, args)) for rank in range(size)]
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


def kill_in_step(options, step, ranks=None, restart=None):
    """Begin a run, or go on with it, in which these processes (None: all) die by SIGKILL right after a step.

    With ``restart``, only when torchrun has started them for that time.
    """
    taken = loop.training_step

    def wrapped(state):
        result = taken(state)
        if state.step == step and (ranks is None or state.ranks.rank in ranks):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if restart is None or os.environ[RESTARTS] == str(restart):
        loop.training_step = wrapped
    pretrain(options)


def elastic(options, log, step):
    """The run under torchrun's agent with one restart, in whose first life process 1 dies after a step."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=1,
        monitor_interval=0.1,
        start_method="forkserver",  # a process with threads, as the agent is, cannot safely be forked
    )
    elastic_launch(config, _die_once)(options, log, step)


def _die_once(options, log, step):
    quick(log)
    kill_in_step(options, step, ranks=(1,), restart=0)


def fail_in_step(options, step, rank):
    """A run in which one process meets a bug."""
    taken = loop.training_step

    def wrapped(state):
        if state.step == step and state.ranks.rank == rank:
            raise ZeroDivisionError("a bug")
        return taken(state)

    loop.training_step = wrapped
    pretrain(options)


def quick(log):
    """One thread, no picture and no measurement of the machine, which take longer than a tiny run."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(1)
    finish.draw_curves = lambda records, path: bool(path.write_bytes(b"")) or True
    loop.matrix_peak = lambda device, dtype: MatrixPeak(1e11, "assumed")
