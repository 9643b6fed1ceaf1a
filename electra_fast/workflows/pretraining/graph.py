"""The device's part of a step as one CUDA graph: recorded once, then started by a single call of the host.

A step of a small network is hundreds of kernels of a few microseconds each, which Python cannot start as fast as a GPU
ends them. Shapes are static, and what differs from step to step (batches, learning rate, temperature, counter of the
random numbers) lies in tensors that stay where they are, so a recorded step is every step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from electra_fast.data.batches import PackedBatch
from electra_fast.errors import ConfigError

from .options import PretrainOptions
from .ranks import Ranks
from .step import TrainingState, Update, eager_update, update

Run = Callable[[], tuple[Tensor, Tensor]]
_WARM_UP_STEPS = 3  # libraries choose their algorithms, kernels are compiled, moments and workspaces come into being


class Work(Protocol):
    """What is the device's own in recording; the rest of `GraphedUpdate` is the same on any device."""

    def warm_up(self, run: Run) -> None:
        """Run as often as it takes until nothing happens that a recording could not repeat."""

    def record(self, run: Run) -> Run:
        """A function that does to the tensors that ``run`` met what ``run`` does, and gives the same result tensors."""

    def fill(self, static: Sequence[PackedBatch], batches: Sequence[PackedBatch]) -> None:
        """Copy batches of the host's into those of the device, after all that was asked of the device before."""


class GraphedUpdate:
    """`update`, recorded at its first call and replayed from then on.

    The steps of the warm-up are taken on the first step's batches, and all that they change is put back, so that a run
    is the same with a graph and without. If recording fails, steps are taken kernel by kernel as ever, and ``say`` is
    told why.

    Args:
        work: see `Work`.
        required: raise ConfigError instead.
    """

    def __init__(self, work: Work, required: bool = False) -> None:
        self._work, self._required = work, required
        self._static: list[PackedBatch] = []
        self._run: Run | None = None
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def __call__(self, state: TrainingState, batches: Sequence[PackedBatch]) -> tuple[Tensor, Tensor]:
        if self._run is None:
            self._static = [batch.clone().to(state.device) for batch in batches]
            self._run = self._recorded(state, lambda: update(state, self._static))
        self._work.fill(self._static, batches)
        return self._run()

    def _recorded(self, state: TrainingState, run: Run) -> Run:
        try:
            before = [tensor.clone() for tensor in changed_by_steps(state)]
            try:
                self._work.warm_up(run)
            finally:
                with torch.no_grad():
                    for tensor, value in zip(changed_by_steps(state), before, strict=True):
                        tensor.copy_(value)
            del before
            return self._work.record(run)
        except RuntimeError as error:
            state.optimizer.zero_grad()
            reason = str(error).strip().partition("\n")[0]
            if self._required:
                raise ConfigError(f"cuda_graph cannot be on: recording a step failed ({reason})") from error
            self.say(f"steps are taken without a CUDA graph: recording one failed ({reason})")
            return run


class CudaWork:
    """Recording on a GPU. Batches come from pinned memory on a second stream, while the step before still runs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._staged: list[PackedBatch] = []
        self._taken = torch.cuda.Event()

    def warm_up(self, run: Run) -> None:
        main = torch.cuda.current_stream(self._device)
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            for _ in range(_WARM_UP_STEPS):
                run()
        main.wait_stream(self._side)

    def record(self, run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),  # other threads are no part of the step
        ):
            results = run()

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return results

        return replay

    def fill(self, static: Sequence[PackedBatch], batches: Sequence[PackedBatch]) -> None:
        main = torch.cuda.current_stream(self._device)
        if not self._staged:
            self._staged = [batch.clone() for batch in static]
            self._taken.record(main)
        with torch.cuda.stream(self._side):
            self._side.wait_event(self._taken)  # until the step before has taken what is staged
            for staged, batch in zip(self._staged, batches, strict=True):
                staged.copy_(batch.pin_memory(), non_blocking=True)
        main.wait_stream(self._side)
        for batch, staged in zip(static, self._staged, strict=True):
            batch.copy_(staged)
        self._taken.record(main)


def changed_by_steps(state: TrainingState) -> list[Tensor]:
    """All tensors on the device that `update` writes to and that outlive it: weights, moments, counter, metrics."""
    trained = [p for p in state.pair.parameters() if p.requires_grad]
    moments = [moment for p in trained for moment in state.optimizer.moments(p).values()]
    return [*trained, *moments, state.rng, state.metrics.step_sums, state.metrics.histogram]


def why_no_graph(options: PretrainOptions, device: torch.device, ranks: Ranks) -> str | None:
    """None where a step can be recorded, else why not."""
    if device.type != "cuda":
        return f"the device is {device.type}, graphs are of CUDA"
    if options.compile:
        return "torch.compile is asked for, which makes its own"
    if ranks.size > 1:
        return "several processes share a step, and what they exchange is not recorded"
    return None


def choose_update(options: PretrainOptions, device: torch.device, ranks: Ranks) -> Update:
    """How steps are taken, as ``cuda_graph`` says: with "auto", as a graph wherever that is possible.

    Raises: ConfigError if "on" is asked for where it is not.
    """
    reason = why_no_graph(options, device, ranks)
    required = options.cuda_graph == "on"
    if required and reason is not None:
        raise ConfigError(f"cuda_graph cannot be on: {reason}")
    if options.cuda_graph == "off" or reason is not None:
        return eager_update
    return GraphedUpdate(CudaWork(device), required)
