"""What happens beside the steps: progress, the times of epochs, early stopping, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from electra_fast.signals import DeferredSignals

    from .display import FinetuneDisplay
    from .train import FinetuneTrainer


class Watch(TrainerCallback):
    """Shows progress, times epochs, stops early, and stops for a signal."""

    def __init__(self, trainer: FinetuneTrainer, display: FinetuneDisplay, signals: DeferredSignals) -> None:
        self._trainer, self._display, self._signals = trainer, display, signals
        self._epoch_began: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.clock.start(state.log_history)
        self._display.begin(self._trainer.seed, state.global_step, state.max_steps)
        if state.global_step:
            self._display.say(f"seed {self._trainer.seed} goes on after step {state.global_step:,}")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        whole = state.global_step % self._trainer.job.steps_per_epoch == 0
        self._epoch_began = self._trainer.clock.training if whole else None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._display.step(state.global_step)
        if state.global_step >= state.max_steps and args.eval_strategy == "steps":
            control.should_evaluate = True
        elif self._signals.received is not None and state.global_step < state.max_steps:
            self._trainer.interrupted = control.should_training_stop = control.should_save = True
            control.should_evaluate = False
            state.log_history.append({"step": state.global_step, **self._trainer.clock.seconds()})

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.interrupted:  # and saved; to evaluate here would make another run of it
            control.should_evaluate = control.should_save = False
        elif self._epoch_began is not None and state.global_step % self._trainer.job.steps_per_epoch == 0:
            seconds = self._trainer.clock.training - self._epoch_began
            state.log_history.append({"step": state.global_step, "epoch_seconds": seconds})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._display.figures(f"loss {logs['loss']:.3f}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, figures = self._trainer.evaluations()[-1]
        self._display.evaluation(step, figures)
        patience = self._trainer.job.options.early_stopping
        if patience and self._trainer.without_better() >= patience and step < state.max_steps:
            control.should_training_stop = True
