"""The training loop: steps, with reports, held-out evaluations and checkpoints, until the end or a signal."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from electra_fast.data.manifest import Corpus
from electra_fast.matrix_peak import matrix_peak
from electra_fast.signals import DeferredSignals

from .build import AUTOCAST, batch_tokens, build, choose_device, corpus_fingerprint, resolve
from .checkpoint import CheckpointDirectory
from .display import Display
from .evaluate import Evaluation
from .finish import finish
from .graph import GraphedUpdate, why_no_graph
from .journal import Journal
from .layout import CHECKPOINTS_NAME
from .options import PretrainOptions
from .ranks import ALONE, Ranks, Vote
from .saved_state import load_state_dict, state_dict
from .speed import Speed
from .start import Start
from .step import training_step
from .watch import LossWatch
from .writers import optional_writers, require_wandb

_NOTICE = "\nfinishing this step and saving a checkpoint; once more to exit at once\n"


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended.

    Attributes:
        output: its directory.
        step: optimiser steps done.
        figures: of the last evaluation (of the last report where no text is held out); empty if interrupted.
        signal: number of the signal that interrupted it, or None.
    """

    output: Path
    step: int
    figures: dict[str, Any] = field(default_factory=dict)
    signal: int | None = None


class TrainingLoop:
    """A run with resolved options, at its beginning or where a checkpoint left it.

    Args:
        notes: what to tell the user first.
        saved: a checkpoint to go on from.
        start: networks to begin with, where there is no checkpoint.
        ranks: the processes that share the run; all train, evaluate and call `train` alike, the first alone writes.
    """

    def __init__(
        self,
        options: PretrainOptions,
        corpus: Corpus,
        notes: Sequence[str] = (),
        saved: Mapping[str, Any] | None = None,
        start: Start | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        if options.wandb is not None:
            require_wandb()
        self.options = options
        self.output = options.output_path
        self.corpus = corpus
        self.notes = [*notes, *(start.notes if start is not None else ())]
        self.ranks = ranks
        config = resolve(options, corpus.manifest)
        self.state = build(options, config, corpus, choose_device(options.device, ranks), start, ranks)
        self.checkpoints = CheckpointDirectory(self.output / CHECKPOINTS_NAME, options.keep)
        self.evaluation = Evaluation(corpus, batch_tokens(config, options.parts), options.eval_batches)
        self.stopwatch = _Stopwatch()
        self.watch = LossWatch(self.state.device, options.on_nonfinite, self.checkpoints.newest)
        self.saved_step: int | None = None
        if saved is not None:
            load_state_dict(self.state, saved)
            self.stopwatch = _Stopwatch(**saved["seconds"])
            if "watch" in saved:
                self.watch.load_state_dict(saved["watch"])
            self.saved_step = self.state.step

    def train(self) -> PretrainResult:
        """Train to the end, or until a signal to any of the processes, after which a checkpoint is saved."""
        state, options, total = self.state, self.options, self.state.recipe.total_steps
        first = self.ranks.first
        with contextlib.ExitStack() as stack:
            stack.callback(state.batches.close)
            others = optional_writers(options, state.step) if first else ()
            self.journal = stack.enter_context(
                contextlib.closing(Journal(self.output, state.step, others, writes=first))
            )
            self.display = stack.enter_context(contextlib.closing(Display(state.step, total, shown=first)))
            interrupt = stack.enter_context(DeferredSignals(_NOTICE if first else ""))
            for note in self.notes:
                self.display.say(note)
            if isinstance(state.update, GraphedUpdate):
                state.update.say = self.display.say
            elif options.cuda_graph == "auto" and state.device.type == "cuda":
                self.display.say(f"no CUDA graph: {why_no_graph(options, state.device, self.ranks)}")
            peak = matrix_peak(state.device, state.autocast or torch.float32)
            self.display.say(str(peak))
            self.speed = Speed(state.pair.config, peak, self._waited(), self.ranks.size)
            self.stopwatch.start()
            self.saved_at = time.monotonic()
            vote, stop = Vote(self.ranks), interrupt.received
            while state.step < total and not stop:
                self.watch.add(state.step + 1, *training_step(state))
                if state.step % options.log_every == 0 or state.step == total:
                    self._report()
                if options.eval_every and state.step % options.eval_every == 0:
                    self._evaluate()
                overdue = time.monotonic() - self.saved_at > 60 * options.checkpoint_minutes
                stop, due = vote(interrupt.received or 0, state.step if overdue else 0)
                if state.step % options.checkpoint_every == 0 or due > (self.saved_step or 0):
                    self._save()
                self.display.step(state.step)
            vote.close()
            self._save()
            if stop and state.step < total:
                return self._interrupted(stop)
            self._evaluate()
            figures = self.journal.last.get("validation") or self.journal.last["train"]
            finish(self.output, state, self.corpus, self.journal, self.stopwatch.total, self.display.say)
            return PretrainResult(self.output, state.step, figures)

    def _report(self) -> None:
        """Figures of the steps since the last report."""
        self._look()
        metrics = self.state.metrics.over(self.ranks)
        figures = metrics.compute()
        seconds = self.stopwatch.lap()
        record = {
            "step": self.state.step,
            "split": "train",
            **figures,
            "loss_spikes": self.watch.spikes(),
            "learning_rate": self.state.learning_rate.item(),
            **self.speed.compute(metrics, seconds, self._waited()),
            "seconds": self.stopwatch.total,
            "memory_mb": peak_memory(self.state.device) / 2**20,
        }
        self.state.metrics.reset()
        self.display.report(self.journal.write(record))

    def _look(self) -> None:
        """Say what the losses so far give reason to. DivergenceError if the run is to stop."""
        for remark in self.watch.check():
            self.display.say(remark)

    def _waited(self) -> float:
        return self.state.batches.statistics()["wait_seconds"]

    def _evaluate(self) -> None:
        """Figures on held-out text, unless there is none or this step has them already."""
        last = self.journal.last.get("validation")
        if not self.evaluation or (last is not None and last["step"] == self.state.step):
            return
        with self.stopwatch.stopped():
            figures = self.evaluation.run(self.state.pair, AUTOCAST[self.options.precision], self.ranks)
        record = {"step": self.state.step, "split": "validation", **figures, "seconds": self.stopwatch.total}
        self.display.report(self.journal.write(record))

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one, or the loss says that it would be worthless."""
        if self.saved_step == self.state.step:
            return
        self._look()
        with self.stopwatch.stopped():
            self.journal.sync()
            contents = {
                **state_dict(self.state),
                "options": self.options.to_dict(),
                "corpus": corpus_fingerprint(self.corpus),
                "seconds": {"total": self.stopwatch.total, "interval": self.stopwatch.interval},
                "watch": self.watch.state_dict(),
                "environment": environment(),
            }
            self.checkpoints.save(self.state.step, contents, self.ranks)
        self.saved_step = self.state.step
        self.saved_at = time.monotonic()

    def _interrupted(self, number: int) -> PretrainResult:
        name = signal.Signals(number).name
        self.display.say(
            f"stopped by {name} after step {self.state.step:,}; the checkpoint is saved. Continue with: "
            f"electra-fast pretrain --output {self.output} --resume"
        )
        return PretrainResult(self.output, self.state.step, signal=number)


class _Stopwatch:
    """Seconds of training: ``total``, and those of the ``interval`` since the last `lap`, pauses not counted."""

    def __init__(self, total: float = 0.0, interval: float = 0.0) -> None:
        self._total, self._interval = total, interval
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.perf_counter()

    @property
    def _running(self) -> float:
        return 0.0 if self._since is None else time.perf_counter() - self._since

    @property
    def total(self) -> float:
        return self._total + self._running

    @property
    def interval(self) -> float:
        return self._interval + self._running

    def lap(self) -> float:
        """The interval's seconds; the next one begins."""
        seconds = self.interval
        self._total, self._interval = self.total, 0.0
        self.start()
        return seconds

    @contextlib.contextmanager
    def stopped(self):
        """Not counting while the block runs."""
        self._total, self._interval, self._since = self.total, self.interval, None
        yield
        self.start()


def environment() -> dict[str, str]:
    """What else decides the last bits of a run, besides its options: torch, and the instructions of the CPU kernels."""
    with contextlib.suppress(ImportError):
        from electra_fast._native import build_info

        return {"torch": str(torch.__version__), "instruction_set": build_info()["capability"]}
    return {"torch": str(torch.__version__)}


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU, or the largest resident size of this process; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
