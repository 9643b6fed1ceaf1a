"""A smaller network made and trained: a student beside its teacher, or what pruning left."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from torch import nn

from electra_fast.models.accelerate import accelerate
from electra_fast.signals import DeferredSignals
from electra_fast.workflows.deployment.quiet import errors_only
from electra_fast.workflows.evaluation.predictor import encode
from electra_fast.workflows.finetuning.display import FinetuneDisplay
from electra_fast.workflows.finetuning.model_directory import BEST_NAME
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.finetuning.preparation import choose_precision, features_of, read_split
from electra_fast.workflows.finetuning.recipe import recipe_for
from electra_fast.workflows.finetuning.seeds import first_batches
from electra_fast.workflows.finetuning.train import Job, make_network, train_seed

from .importance import measure_importance
from .options import CompressOptions
from .pruning import check_sizes, prune
from .student import make_student, student_config
from .teaching import Lesson, Taught

if TYPE_CHECKING:
    from datasets import Dataset

    from electra_fast.workflows.evaluation.predictor import Predictor
    from electra_fast.workflows.finetuning.task import Columns

_NOTICE = "\nstopping after this step; once more stops at once\n"
_WORK = "training"
_BEGINNING = "beginning"


def make_smaller(
    options: CompressOptions,
    directory: Path,
    teacher: Predictor,
    dev: Columns,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[str, int | None]:
    """Write a smaller model to ``folder``, trained beside the one in ``directory``.

    Args:
        teacher: that model, as it predicts; another copy of it teaches.
        dev: held-out examples, by which the best model is chosen.

    Returns:
        What was done, in a sentence, and the signal that ended it early.
    """
    task, tokenizer = teacher.task, teacher.tokenizer
    train = read_split(task, teacher.policy, options.train)
    rows = features_of(task, train.examples, tokenizer)
    large = task.load(directory).eval()
    transformers.set_seed(options.seed)
    if options.method == "distill":
        small, made = _student(options, large)
    else:
        small, made = _pruned(options, teacher, large, rows)
    say(made)
    work = folder / _WORK
    with errors_only():
        task.save(small, work / _BEGINNING)
        tokenizer.save_pretrained(work / _BEGINNING)
    taught = Taught(task, accelerate(large).to(teacher.device), _lesson(options))
    settings = _settings(options, task.name)
    job = Job(
        options=settings,
        recipe=recipe_for(settings, small.config.hidden_size, len(train.examples), task.default_epochs),
        checkpoint=str(work / _BEGINNING),
        task=taught,
        policy=teacher.policy,
        tokenizer=tokenizer,
        rows=rows,
        lengths=task.row_lengths(rows),
        dev=encode(task, tokenizer, dev),
        precision="fp32",
        device=teacher.device,
        metric=task.metric,
    )
    precision, reason = choose_precision(
        options.precision, lambda: make_network(job, 0), taught.loss, first_batches(job), job.device
    )
    job = dataclasses.replace(job, precision=precision)
    display = FinetuneDisplay(1, task.metric)
    with contextlib.closing(display), DeferredSignals(_NOTICE) as signals:
        display.say(reason)
        train_seed(job, options.seed, work / "run", display, signals)
        signal = signals.received
    best = work / "run" / BEST_NAME
    if signal is not None and not best.is_dir():
        raise KeyboardInterrupt
    for path in best.iterdir():
        path.replace(folder / path.name)
    shutil.rmtree(work)
    return made, signal


def _settings(options: CompressOptions, task: str) -> FinetuneOptions:
    """As in fine-tuning, but that all layers learn alike: what they begin with was made for another network."""
    return FinetuneOptions(
        task=task,
        train=options.train,
        dev=options.dev,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        layer_decay=1.0,
        dropout=options.dropout,
        seeds=options.seed,
        device=options.device,
        precision=options.precision,
    )


def _lesson(options: CompressOptions) -> Lesson:
    hidden = options.hidden_weight
    if hidden is None:
        hidden = 1.0 if options.method == "distill" else 0.0
    return Lesson(options.temperature, options.soft_weight, hidden)


def _student(options: CompressOptions, large: nn.Module) -> tuple[nn.Module, str]:
    config = student_config(large.config, options.layers, options.hidden_size, options.heads, options.intermediate_size)
    small, fresh = make_student(large, config)
    drawn = f"; new weights: {', '.join(fresh)}" if fresh else ""
    return small, f"a student of {_sizes(config)} instead of {_sizes(large.config)}{drawn}"


def _pruned(options: CompressOptions, teacher: Predictor, large: nn.Module, rows: Dataset) -> tuple[nn.Module, str]:
    heads, neurons = check_sizes(large.config, options.heads, options.intermediate_size)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(options.seed)).tolist()
    chosen = order[: options.importance_examples]
    pad = teacher.tokenizer.pad_token_id
    batches = (
        teacher.task.collate([rows[i] for i in chosen[at : at + options.batch_size]], pad)
        for at in range(0, len(chosen), options.batch_size)
    )
    small = prune(large, measure_importance(large, teacher.task.loss, batches), heads, neurons)
    return small, f"pruned to {_sizes(small.config)} from {_sizes(large.config)}, by {len(chosen)} rows"


def _sizes(config: transformers.PretrainedConfig) -> str:
    return (
        f"{config.num_hidden_layers} layers × {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{config.intermediate_size} neurons"
    )
