"""Loading the model of a server: which weights are trusted, in which precision it is computed, and what runs it."""

from __future__ import annotations

import contextlib
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import electra_fast
from electra_fast.diagnostics import processor
from electra_fast.errors import CheckpointError
from electra_fast.models.weights import PICKLE, SAFETENSORS, read_weights, write_weights
from electra_fast.ops.backend import backends
from electra_fast.workflows.evaluation import Predictor, load_task
from electra_fast.workflows.finetuning.model_directory import find_model
from electra_fast.workflows.pretraining.build import choose_device
from electra_fast.workflows.pretraining.calibrate import why_no_bf16

from .engine import rows_of
from .options import ServeOptions
from .schemas import examples

_WORTH = 0.95  # bf16 is taken if it takes less than this part of fp32's time
_ROUNDS = 5


class Loaded(NamedTuple):
    """A predictor, and why it computes in its precision."""

    predictor: Predictor
    why: str


def load(options: ServeOptions) -> Loaded:
    """The model of a server.

    With precision "auto", a batch of `max_batch_tokens` is timed in fp32 and bf16, where the hardware has bf16.

    Raises:
        CheckpointError: no model is there, it is damaged, or its weights are a pickle and `trust` is not set.
        ConfigError: a device or precision that is not there.
    """
    with _safetensors(find_model(options.model), options.trust) as directory:

        def in_precision(precision: str) -> Predictor:
            return load_task(
                directory,
                precision=precision,
                device=options.device,
                threads=options.threads,
                batch_tokens=options.max_batch_tokens,
            )

        if options.precision != "auto":
            return Loaded(in_precision(options.precision), "as asked for")
        missing = why_no_bf16(choose_device(options.device))
        plain = in_precision("fp32")
        if missing is not None:
            return Loaded(plain, missing)
        narrow = in_precision("bf16")
        seconds = {predictor: batch_seconds(predictor, options.max_batch_tokens) for predictor in (plain, narrow)}
        why = (
            f"a batch of {options.max_batch_tokens:,} tokens takes {seconds[narrow] * 1e3:.1f} ms in bf16 and "
            f"{seconds[plain] * 1e3:.1f} ms in fp32"
        )
        return Loaded(narrow if seconds[narrow] < _WORTH * seconds[plain] else plain, why)


def batch_seconds(predictor: Predictor, tokens: int) -> float:
    """The least seconds of a few in which the task's example, so often that it makes so many tokens, was computed."""
    example = examples(predictor.task)
    times_over = max(1, tokens // sum(predictor.encode(example).lengths))
    rows = rows_of(predictor.encode(example * times_over))
    times = []
    for _ in range(_ROUNDS + 1):
        began = time.perf_counter()
        predictor.run(rows)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def facts(loaded: Loaded, options: ServeOptions) -> dict[str, Any]:
    """What a server says of its model: what it is, how it is computed, and within which limits."""
    predictor = loaded.predictor
    device = predictor.device
    dtype = torch.float32 if predictor.precision == "fp32" else torch.bfloat16
    runs = backends(device, dtype)
    return {
        "model": str(options.model),
        "task": predictor.task.name,
        "labels": list(getattr(predictor.task, "labels", ())),
        "max_length": predictor.task.max_length,
        "parameters": sum(p.numel() for p in predictor.model.parameters()),
        "precision": predictor.precision,
        "precision_why": loaded.why,
        "device": str(device),
        "hardware": processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "backends": {
            op: {
                "runs": next(name for name, reason in reasons.items() if reason is None),
                "why_not": {name: reason for name, reason in reasons.items() if reason is not None},
            }
            for op, reasons in runs.items()
            if op in ("attention", "layer_norm", "gelu", "embedding")
        },
        "limits": {
            "max_inputs": options.max_inputs,
            "max_tokens": options.max_tokens,
            "max_body": options.max_body,
            "queue": options.queue,
            "timeout": options.timeout,
            "max_batch_tokens": options.max_batch_tokens,
        },
        "versions": {
            "electra_fast": electra_fast.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


@contextlib.contextmanager
def _safetensors(directory: Path, trust: bool) -> Iterator[Path]:
    """The directory, or, if its weights are a pickle and that is trusted, one that has them as safetensors.

    CheckpointError: they are a pickle and `trust` is not set, or the pickle holds more than tensors.
    """
    names = {path.name for path in directory.iterdir()}
    safe = any(name.startswith(SAFETENSORS) for name in names)
    pickled = any(name.startswith(PICKLE) for name in names)
    if safe or not pickled:
        yield directory
        return
    if not trust:
        raise CheckpointError(
            f"{directory} has its weights in {PICKLE}, a pickle, which could run code as it is read: convert them to "
            f"{SAFETENSORS}, or give --trust if you know where they come from"
        )
    with tempfile.TemporaryDirectory() as made:
        for path in directory.iterdir():
            if not path.name.startswith(PICKLE):
                (Path(made) / path.name).symlink_to(path.resolve())
        write_weights(Path(made) / SAFETENSORS, read_weights(directory))
        yield Path(made)
