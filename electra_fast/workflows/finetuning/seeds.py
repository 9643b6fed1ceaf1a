"""All seeds of a run: what is prepared once, then one after the other, then the summary."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.files import write_text
from electra_fast.signals import DeferredSignals
from electra_fast.workflows.evaluation.predictor import Predictor, encode
from electra_fast.workflows.pretraining.build import choose_device
from electra_fast.workflows.pretraining.config_file import write_config

from .checkpoint import load_config, load_tokenizer, resolve
from .display import FinetuneDisplay
from .options import FinetuneOptions
from .outcome import finish, read_result, write_result
from .preparation import Splits, choose_precision, count_cut, features_of, policy_of, read_splits
from .recipe import recipe_for
from .run import CONFIG_NAME, Listener
from .train import Job, make_network, train_seed

DATA_NAME = "data.json"  # of which files the rows came, and what was done to them
_NOTICE = "\nstopping after this step; once more stops at once\n"
_FIRST = 4  # held-out examples that the names of figures are taken from
_MEASURED = 4  # batches that the precision is chosen on

Outcome = tuple[Path | None, dict[str, Any], int | None]


def begin(output: Path, options: FinetuneOptions, on_evaluation: Listener | None) -> Outcome:
    """Everything is checked, and the precision chosen, before anything is written."""
    job, splits = _prepare(options, on_evaluation)
    _check_metric(job)
    precision, reason = choose_precision(
        options.precision, lambda: make_network(job, 0), job.task.loss, first_batches(job), job.device
    )
    job = dataclasses.replace(job, precision=precision)
    write_text(output / DATA_NAME, json.dumps(splits.to_dict(), indent=2, ensure_ascii=False) + "\n")
    decided = dataclasses.replace(options, precision=precision)
    comment = f"Everything that this run depends on. Repeat it with --config.\n{reason}"
    write_config(output / CONFIG_NAME, decided.to_dict(), comment, FinetuneOptions)
    return _train(output, job, splits, [*splits.notes(), reason])


def go_on(output: Path, options: FinetuneOptions, on_evaluation: Listener | None) -> Outcome:
    """The seeds that are not done. CheckpointError: the data are not those that the run began with."""
    job, splits = _prepare(options, on_evaluation)
    before = json.loads((output / DATA_NAME).read_text(encoding="utf-8"))
    for name, split in splits.to_dict().items():
        if before.get(name, {}).get("sha256") != split["sha256"]:
            raise CheckpointError(f"{split['path']} has changed since this run began: begin another run")
    return _train(output, dataclasses.replace(job, precision=options.precision), splits, [])


def _prepare(options: FinetuneOptions, on_evaluation: Listener | None) -> tuple[Job, Splits]:
    checkpoint = resolve(options.required("model"))
    options.required("train")
    config = load_config(checkpoint)
    device = choose_device(options.device)
    _settle(options, device)
    longest = config.max_position_embeddings
    if options.max_length is not None and options.max_length > longest:
        raise ConfigError(f"max_length must be at most {longest}, what {checkpoint} reads, got {options.max_length}")
    if options.reinit_layers > config.num_hidden_layers:
        raise ConfigError(
            f"reinit_layers must be at most {config.num_hidden_layers}, the layers of {checkpoint}, "
            f"got {options.reinit_layers}"
        )
    task, splits = read_splits(options, longest)
    optimizer, beta2 = task.default_optimizer
    options = dataclasses.replace(
        options,
        batch_size=options.batch_size or task.default_batch_size,
        optimizer=options.optimizer or optimizer,
        adam_beta2=beta2 if options.adam_beta2 is None else options.adam_beta2,
    )
    tokenizer = load_tokenizer(checkpoint)
    rows = features_of(task, splits.train.examples, tokenizer)
    policy = policy_of(options)
    dev = encode(task, tokenizer, splits.dev.examples[:])
    splits = splits.with_cut(train=count_cut(rows), dev=count_cut(dev.rows))
    return (
        Job(
            options=options,
            recipe=recipe_for(options, config.hidden_size, len(splits.train.examples), task.default_epochs),
            checkpoint=checkpoint,
            task=task,
            policy=policy,
            tokenizer=tokenizer,
            rows=rows,
            lengths=task.row_lengths(rows),
            dev=dev,
            precision=options.precision,
            device=device,
            metric=options.metric or task.metric,
            on_evaluation=on_evaluation,
        ),
        splits,
    )


def _train(output: Path, job: Job, splits: Splits, notes: list[str]) -> Outcome:
    results, records = [], []
    display = FinetuneDisplay(len(job.options.seeds), job.metric)
    with contextlib.closing(display), DeferredSignals(_NOTICE) as signals:
        for note in notes:
            display.say(note)
        for seed in job.options.seeds:
            folder = output / f"seed-{seed}"
            done = read_result(folder)
            if done is None:
                result, history = train_seed(job, seed, folder, display, signals)
                if result is None:
                    display.close()
                    display.say(f"Go on with: electra-fast finetune {job.options.task} --output {output} --resume")
                    return None, {}, signals.received
                done = write_result(folder, result, history)
            else:
                display.say(f"seed {seed} is done")
            results.append(done[0])
            records += done[1]
        display.close()
        return output / "best", finish(output, job, splits, results, records, display.say), None


def _check_metric(job: Job) -> None:
    """ConfigError, before anything is trained, if the metric is none: an untrained network's figures tell the names."""
    if job.options.metric is None:
        return
    first = {name: values[:_FIRST] for name, values in job.dev.examples.items()}
    predictor = Predictor(job.task, make_network(job, 0), job.tokenizer, job.policy)
    figures = job.task.score(predictor.predict_columns(first), first)
    if job.metric not in figures:
        raise ConfigError(f"metric must be one of {', '.join(figures)}, got {job.metric!r}")


def first_batches(job: Job) -> list[dict[str, Any]]:
    """A few batches of training rows."""
    size = job.options.batch_size // job.options.accumulation
    starts = range(0, max(1, min(len(job.rows), _MEASURED * size) - size + 1), size)
    pad = job.tokenizer.pad_token_id
    return [job.task.collate([job.rows[i] for i in range(at, min(at + size, len(job.rows)))], pad) for at in starts]


def _settle(options: FinetuneOptions, device: torch.device) -> None:
    """Threads, and on the CPU freed memory kept for the next step, unless nothing of ours is to help."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if device.type == "cpu" and options.backend == "electra_fast":
        with contextlib.suppress(ImportError):  # without the native library the ops run on the reference
            import_module("electra_fast._native").keep_freed_memory()
