"""The processes of a run, as torchrun starts them: which one this is, and what they tell each other.

Without torchrun there is one, nothing of torch.distributed is set up, and every call below is a few lines of Python.
What only the host needs (errors, signals, decisions) goes over gloo, which never waits for a GPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from electra_fast.errors import ConfigError, ElectraError, RankError

T = TypeVar("T")

RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # torchrun's: how often it has started the processes anew


@dataclass(frozen=True)
class Ranks:
    """``rank`` of ``size`` processes; ``local``: the number of this one on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Add ``values`` of all processes, in place, on their device and without waiting for it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every process's value, on all, by rank; values are plain or tensors on the CPU."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, act: Callable[[], T]) -> T:
        """What ``act`` gives on the first process, on all.

        Raises:
            RankError: on the others, where it raised on the first, with the same words.
        """
        if self.size == 1:
            return act()
        if not self.first:
            outcome: list = [None, None]
            dist.broadcast_object_list(outcome, device=torch.device("cpu"))
            value, failure = outcome
            if failure is not None:
                raise RankError(failure)
            return value
        try:
            value = act()
        except BaseException as error:
            dist.broadcast_object_list([None, _words(self.rank, error)], device=torch.device("cpu"))
            raise
        dist.broadcast_object_list([value, None], device=torch.device("cpu"))
        return value

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All leave the block, or none: what one raises, all raise. Nothing in the block may wait for other processes.

        Raises:
            RankError: on those where it went well.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            self.gather(_words(self.rank, error))
            raise
        failures = [failure for failure in self.gather(None) if failure is not None]
        if failures:
            raise RankError(failures[0])


ALONE = Ranks()


class Vote:
    """Numbers of which all processes learn the largest: signals received, clocks run out.

    With several processes, a call gives what the call before was told: the exchange runs beside the step, and all see
    the same at the same step.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._result = None
        self._work = None

    def __call__(self, *values: int) -> list[int]:
        if self._ranks.size == 1:
            return list(values)
        result = self._finish() or [0] * len(values)
        self._result = torch.tensor(values, dtype=torch.int64)
        self._work = dist.all_reduce(self._result, op=dist.ReduceOp.MAX, async_op=True)
        return result

    def _finish(self) -> list[int] | None:
        if self._work is None:
            return None
        self._work.wait()
        self._work = None
        return self._result.tolist()

    def close(self) -> None:
        """Wait for the last exchange, which every process has begun."""
        self._finish()


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """The processes that torchrun started, connected while the block runs; one alone without torchrun.

    Args:
        device: as in `PretrainOptions`; NCCL connects GPUs, gloo everything else.

    Raises:
        ConfigError: torchrun's environment variables are incomplete.
        RankError: another process ended while this one waited for it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    try:
        ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but RANK or LOCAL_RANK is missing or no number ({error}): "
            "start several processes with torchrun"
        ) from None
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    try:
        if on_gpu and ranks.local < torch.cuda.device_count():
            torch.cuda.set_device(ranks.local)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=_store(ranks), rank=ranks.rank, world_size=ranks.size)
        yield ranks
        dist.destroy_process_group()  # not after an error: others may never come, and this process is about to end
    except RuntimeError as error:
        if not _lost_connection(error):
            raise
        raise RankError(
            "another process of this run has ended or cannot be reached; its own message says why, if it had the time"
        ) from error


def _store(ranks: Ranks) -> dist.Store:
    """Where the processes find each other's addresses.

    torchrun keeps one store over its restarts: without a place of their own, processes that were started anew can read
    the address of one that has died.
    """
    store, _, _ = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"electra_fast/{os.environ.get(RESTARTS, '0')}/{ranks.size}", store)


def _lost_connection(error: RuntimeError) -> bool:
    """Whether this is what gloo or NCCL raise when a peer is gone; gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in ("gloo", "Connection"))


def _words(rank: int, error: BaseException) -> str:
    said = str(error) if isinstance(error, ElectraError) else f"{type(error).__name__}: {error}"
    return f"process {rank} stopped: {said}"
