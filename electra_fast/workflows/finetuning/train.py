"""One seed's training: `transformers`' Trainer, with this package's order of rows, loss, evaluation and keeping."""

from __future__ import annotations

import math
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Sampler

from electra_fast.errors import DivergenceError
from electra_fast.models.accelerate import accelerate
from electra_fast.workflows.evaluation.predictor import Encoded, Predictor

from .checkpoint import load_config, quiet
from .clock import Clock
from .freeze import freeze_encoder
from .model_directory import BEST_NAME, save_model
from .order import EpochOrder
from .recipe import Recipe, make_optimizer, make_schedule
from .reinitialize import reinitialize_top
from .run import Listener
from .watch import Watch

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from electra_fast.data.hygiene import HygienePolicy
    from electra_fast.signals import DeferredSignals

    from .display import FinetuneDisplay
    from .options import FinetuneOptions
    from .task import Task


@dataclass(frozen=True)
class Job:
    """What the seeds of a run share.

    Attributes:
        checkpoint: the pretrained model. task: with its labels.
        rows: training features (`Task.features`); lengths: their tokens. dev: held-out examples, and rows made of them.
        precision: fp32 or bf16. metric: by which the best model is chosen.
        on_evaluation: called with seed, step and figures; what it raises ends the run.
    """

    options: FinetuneOptions
    recipe: Recipe
    checkpoint: str
    task: Task
    policy: HygienePolicy
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset
    lengths: list[int]
    dev: Encoded
    precision: str
    device: torch.device
    metric: str
    on_evaluation: Listener | None = None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.rows) / self.options.batch_size)


@dataclass(frozen=True)
class SeedResult:
    """What came of a seed: figures of its best model on the held-out data, and what it took.

    Attributes:
        train_seconds: in steps; evaluation_seconds: in the evaluations between them.
        epoch_seconds: of each whole epoch, evaluation and writing not included.
    """

    seed: int
    figures: dict[str, float]
    best_step: int
    steps: int
    train_seconds: float
    evaluation_seconds: float
    epoch_seconds: list[float]
    stopped_early: bool

    @property
    def seconds_per_epoch(self) -> float | None:
        return statistics.median(self.epoch_seconds) if self.epoch_seconds else None


def make_network(job: Job, seed: int) -> nn.Module:
    """The network before training; on our ops unless the backend is transformers."""
    transformers.set_seed(seed)
    model = job.task.model(job.checkpoint, pretrained=not job.options.from_scratch, dropout=job.options.dropout)
    if job.options.reinit_layers:
        reinitialize_top(model, job.options.reinit_layers, load_config(job.checkpoint).initializer_range)
    if job.options.freeze_encoder:
        freeze_encoder(model)
    if job.options.backend == "electra_fast" and isinstance(model, transformers.PreTrainedModel):
        accelerate(model)  # another is on our ops as it was made
    return model.to(job.device)


def train_seed(
    job: Job, seed: int, folder: Path, display: FinetuneDisplay, signals: DeferredSignals
) -> tuple[SeedResult | None, list[dict[str, Any]]]:
    """Train one seed in ``folder``, from its newest checkpoint if there is one; writes ``folder/best``.

    Returns:
        The result (None: a signal stopped it, and a checkpoint was written) and the records of metrics.jsonl.

    Raises:
        DivergenceError: the loss is not finite.
    """
    trainer = FinetuneTrainer(job, make_network(job, seed), seed, folder, display, signals)
    checkpoint = _newest_checkpoint(folder)
    with quiet():
        trainer.train(resume_from_checkpoint=checkpoint)
    records = trainer.records()
    if trainer.interrupted:
        return None, records
    result = trainer.result()
    if not job.options.keep_checkpoints:
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)
    return result, records


def _newest_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; those that a kill left half-written are removed. Its state is written last."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / transformers.trainer.TRAINER_STATE_NAME).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path)
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


class FinetuneTrainer(transformers.Trainer):
    """The Trainer, of which the loop, the checkpoints and the callbacks are used.

    The loss is the task's, under autocast in bf16; evaluation is the `Predictor`'s; a model better than any before is
    written at once. What has to survive an interruption is in ``state.log_history``, which the checkpoints hold.
    """

    def __init__(
        self,
        job: Job,
        model: nn.Module,
        seed: int,
        folder: Path,
        display: FinetuneDisplay,
        signals: DeferredSignals,
    ) -> None:
        options = job.options
        self.job, self.seed, self.folder = job, seed, folder
        self.interrupted = False
        self.clock = Clock()
        self.predictor = Predictor(
            job.task.between_steps(),
            model,
            job.tokenizer,
            job.policy,
            precision=job.precision,
            autocast=job.precision == "bf16",
        )
        when = "epoch" if options.eval_every is None else "steps"
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            seed=seed,
            num_train_epochs=job.recipe.epochs,
            max_steps=job.recipe.max_steps or -1,
            per_device_train_batch_size=options.batch_size // options.accumulation,
            gradient_accumulation_steps=options.accumulation,
            max_grad_norm=options.clip_norm,
            logging_steps=options.log_every,
            eval_strategy=when,
            eval_steps=options.eval_every,
            save_strategy=when,
            save_steps=options.eval_every or 500,
            save_total_limit=1,
            remove_unused_columns=False,
            dataloader_pin_memory=job.device.type == "cuda",
            use_cpu=job.device.type == "cpu",
            disable_tqdm=True,
            report_to="none",
        )
        super().__init__(
            model=model,
            args=arguments,
            data_collator=lambda rows: job.task.collate(rows, job.tokenizer.pad_token_id),
            train_dataset=job.rows,
            eval_dataset=[],
            callbacks=[Watch(self, display, signals)],
            optimizers=(make_optimizer(model, options, job.recipe), None),
        )
        self.remove_callback(transformers.PrinterCallback)
        self.model_accepts_loss_kwargs = False  # the parts of a step are means, divided by their number

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        lengths = self.job.lengths if self.job.options.group_by_length else None
        batch = self.job.options.batch_size
        return EpochOrder(len(self.job.rows), self.seed, batch, lambda: self.epoch, lengths)

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next step belongs to, from 0."""
        return self.state.global_step // self.job.steps_per_epoch

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = make_schedule(self.optimizer, num_training_steps, self.job.recipe.warmup)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_learning_rate(self) -> float:
        """The head's: the groups' rates differ by the layer-wise decay."""
        recipe = self.job.recipe
        return recipe.learning_rate * recipe.head_factor * self.lr_scheduler.lr_lambdas[0](self.lr_scheduler.last_epoch)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would take a millisecond a step."""
        return 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """`Task.loss`, in the run's precision."""
        with torch.autocast(self.job.device.type, torch.bfloat16, enabled=self.job.precision == "bf16"):
            loss = self.job.task.loss(model, inputs)
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"the loss is {loss.item()} at step {self.state.global_step} of seed {self.seed}. Lower learning_rate, "
                "or use precision fp32"
            )
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Figures of the held-out data, under the names of `Task.score` with ``eval_`` in front."""
        job = self.job
        with self.clock.aside("evaluation"):
            predictions = predict(self.predictor, job.dev)
            task = job.task.settle(predictions, job.dev.examples)
            figures = task.score(predictions, job.dev.examples)
            value = figures[job.metric]
            if not math.isfinite(value):
                raise DivergenceError(f"{job.metric} of seed {self.seed} is {value} on the held-out data")
        if self.state.best_metric is None or value > self.state.best_metric:
            with self.clock.aside("writing"):
                save_model(self.folder / BEST_NAME, task, self.model, job.tokenizer, job.policy, figures)
            self.state.best_metric = value
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log({**metrics, **self.clock.seconds()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if job.on_evaluation is not None:
            job.on_evaluation(self.seed, self.state.global_step, figures)
        return metrics

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.clock.aside("writing"):
            super()._save_checkpoint(*args, **kwargs)

    def evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """Step and figures of every evaluation so far, those before an interruption included."""
        return [
            (entry["step"], {name[5:]: value for name, value in entry.items() if name.startswith("eval_")})
            for entry in self.state.log_history
            if f"eval_{self.job.metric}" in entry
        ]

    def without_better(self) -> int:
        """Evaluations since the best one."""
        values = [figures[self.job.metric] for _, figures in self.evaluations()]
        return len(values) - 1 - values.index(max(values)) if values else 0

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: training by log_every, and every evaluation."""
        found = []
        for entry in self.state.log_history:
            where = {"seed": self.seed, "step": entry["step"], "epoch": round(entry.get("epoch") or 0.0, 4)}
            if "loss" in entry:
                found.append(
                    {
                        **where,
                        "split": "train",
                        "loss": entry["loss"],
                        "learning_rate": entry["learning_rate"],
                        "gradient_norm": entry.get("grad_norm"),
                    }
                )
        for step, figures in self.evaluations():
            epoch = round(step / self.job.steps_per_epoch, 4)
            found.append({"seed": self.seed, "step": step, "epoch": epoch, "split": "dev", **figures})
        return sorted(found, key=lambda record: record["step"])

    def result(self) -> SeedResult:
        """What came of it, once training has ended."""
        best_step, figures = max(self.evaluations(), key=lambda entry: entry[1][self.job.metric])
        last = next(entry for entry in reversed(self.state.log_history) if "train_seconds" in entry)
        return SeedResult(
            seed=self.seed,
            figures=figures,
            best_step=best_step,
            steps=self.state.global_step,
            train_seconds=last["train_seconds"],
            evaluation_seconds=last["evaluation_seconds"],
            epoch_seconds=[entry["epoch_seconds"] for entry in self.state.log_history if "epoch_seconds" in entry],
            stopped_early=self.state.global_step < self.state.max_steps,
        )


def predict(predictor: Predictor, encoded: Encoded) -> list[dict[str, Any]]:
    """Predictions of examples that were encoded before."""
    predictor.model.eval()
    return predictor.decode(predictor.infer(encoded.rows, encoded.lengths), encoded)
