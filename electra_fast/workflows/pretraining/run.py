"""The two ways into a pretraining run: beginning one, and resuming one from its newest checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import electra_fast
from electra_fast.data.job import open_directory
from electra_fast.errors import CheckpointError, ConfigError

from .build import accumulation_of, choose_device, corpus_fingerprint, open_training_corpus, resolve, resolved
from .calibrate import plan
from .checkpoint import CheckpointDirectory, load_checkpoint
from .config_file import read_config, write_config
from .layout import CHECKPOINTS_NAME, CONFIG_NAME
from .loop import PretrainResult, TrainingLoop, environment
from .options import CHANGEABLE, PretrainOptions
from .ranks import RESTARTS, Ranks, joined
from .start import adopt

_NEARLY = frozenset(("device", "parallel"))  # may change as well, at the price of the last bits


def pretrain(options: PretrainOptions, or_resume: bool = False) -> PretrainResult:
    """Begin a run in ``options.output``.

    Writes config.toml, metrics.jsonl, checkpoints/, and at the end model/ (two Hugging Face directories), curves.png,
    summary.json and report.html. SIGINT, SIGTERM and SIGUSR1 save a checkpoint and return.

    Args:
        or_resume: go on with the run that ``options.output`` holds, if it does, as `resume` would: a call that can be
            made again whatever happened. Where torchrun has started the processes anew this is so without asking.

    Raises:
        ElectraError: the subclass says which of options, corpus or disk cannot be used.
        DivergenceError: the loss or the gradients are not finite.
    """
    with joined(options.device) as ranks, _held(options.output_path, ranks) as output:
        if ranks.agree(lambda: _holds_run(output)):
            if or_resume or _restarted():
                return _resume(output, options.to_dict(), ranks)
            raise ConfigError(f"{output} already holds a run: continue it with --resume, or choose another --output")
        return _begin(output, options, ranks)


def resume(output: str | Path, changes: Mapping[str, Any] | None = None) -> PretrainResult:
    """Continue the run in ``output`` from its newest whole checkpoint, to the same losses to the last bit.

    Args:
        changes: options given anew; only those that change no loss may differ (`CHANGEABLE`), ``device`` and
            ``parallel``.

    Raises:
        CheckpointError: there is no run, or no undamaged checkpoint, or it does not fit the corpus.
        ConfigError: a change would change the losses.
    """
    output, changes = Path(output), changes or {}
    if not output.is_dir():
        raise CheckpointError(f"there is no run to resume in {output}: leave out --resume to begin one")
    with joined(changes.get("device", "auto")) as ranks, _held(output, ranks):
        return _resume(output, changes, ranks)


def _begin(output: Path, options: PretrainOptions, ranks: Ranks) -> PretrainResult:
    options = dataclasses.replace(options, ranks=options.ranks or ranks.size)
    with ranks.together():
        corpus = open_training_corpus(options.data_paths, options.data_weights, options.data_cache_path)
        options, start = adopt(options, corpus)
        config = resolve(options, corpus.manifest)
        accumulation_of(options, ranks)
        device = choose_device(options.device, ranks)
        _settle(options.threads, device)
    decided = plan(options, config, corpus, device, _teller(ranks), ranks.size)
    decided = ranks.agree(lambda: decided)
    options = dataclasses.replace(options, precision=decided.precision)
    if decided.total_steps is not None:
        options = dataclasses.replace(options, total_steps=decided.total_steps, max_time=None)
    config = resolve(options, corpus.manifest)
    options = resolved(options, config, device)
    # Before anything is written: all checks are in here.
    training = TrainingLoop(options, corpus, decided.reasons, start=start, ranks=ranks)
    ranks.agree(lambda: write_config(output / CONFIG_NAME, options.to_dict(), _origin(decided.reasons)))
    return training.train()


def _resume(output: Path, changes: Mapping[str, Any], ranks: Ranks) -> PretrainResult:
    directory = CheckpointDirectory(output / CHECKPOINTS_NAME)
    saved, damaged = _newest(directory, ranks)
    notes = [f"{note}; using the one before" for note in damaged]
    with ranks.together():
        if saved is None and not (output / CONFIG_NAME).exists():
            raise CheckpointError(f"there is no run to resume in {output}: leave out --resume to begin one")
        before = {"ranks": 1, **(read_config(output / CONFIG_NAME) if saved is None else saved["options"])}
        if ranks.size > 1:
            before["device"] = before["device"].partition(":")[0]  # each process has one of its own number
        options = _changed(before, {**changes, "output": output})
        corpus = open_training_corpus(options.data_paths, options.data_weights, options.data_cache_path)
        if saved is not None and saved["corpus"] != corpus_fingerprint(corpus):
            raise CheckpointError(
                f"{options.data_name} is not the corpus this run began with (its contents differ): give that one with "
                "--data"
            )
    if options.threads != before["threads"] or options.device != before["device"]:
        notes.append(
            f"the run began with {before['threads']} threads on {before['device']} and goes on with {options.threads} "
            f"on {options.device}: losses will not be equal to the last bit"
        )
    if saved is not None and (differing := _environment_differs(saved)):
        notes.append(f"{differing}: losses may not be equal to the last bit")
    if saved is not None and len(saved["metrics"]) != ranks.size:
        notes.append(
            f"{len(saved['metrics'])} processes wrote the checkpoint and {ranks.size} go on: losses will be equal up "
            "to rounding"
        )
    _settle(options.threads, choose_device(options.device, ranks))
    start = adopt(options, corpus)[1] if saved is None else None
    notes.append("no checkpoint yet: beginning anew" if saved is None else f"continuing after step {saved['step']:,}")
    return TrainingLoop(options, corpus, notes, saved, start, ranks).train()


def _newest(directory: CheckpointDirectory, ranks: Ranks) -> tuple[dict[str, Any] | None, list[str]]:
    """As `CheckpointDirectory.load_newest`: the first process looks and checks, all read the same."""
    newest: dict[str, Any] | None = None

    def look() -> tuple[Path | None, list[str]]:
        nonlocal newest
        newest, damaged = directory.load_newest()
        return None if newest is None else directory.files()[-1], damaged

    path, damaged = ranks.agree(look)
    with ranks.together():
        if path is not None and newest is None:
            newest = load_checkpoint(path, verified=True)
    return newest, damaged


def _holds_run(output: Path) -> bool:
    return (output / CONFIG_NAME).exists() or bool(CheckpointDirectory(output / CHECKPOINTS_NAME).files())


def _restarted() -> bool:
    """Whether torchrun has started these processes anew, because one of them had ended (--max-restarts)."""
    return int(os.environ.get(RESTARTS, "0")) > 0


def _teller(ranks: Ranks) -> Callable[[str], None]:
    """Says something while there is no display yet."""
    return lambda text: print(text, file=sys.stderr, flush=True) if ranks.first else None


@contextlib.contextmanager
def _held(output: Path, ranks: Ranks) -> Iterator[Path]:
    """The run's directory, made if need be and gone again if nothing came of it; no other run may write to it."""
    with contextlib.ExitStack() as stack:
        created = ranks.agree(lambda: stack.enter_context(open_directory(output)))
        try:
            yield output
        except BaseException:
            if ranks.first and created and not any(output.iterdir()):
                output.rmdir()
            raise


def _environment_differs(saved: Mapping[str, Any]) -> str | None:
    """What differs from where the checkpoint was written, of what decides the last bits."""
    now = environment()
    for name, before in saved.get("environment", {}).items():
        if now.get(name) != before:
            return f"the run began with {name.replace('_', ' ')} {before} and goes on with {now.get(name)}"
    return None


def _changed(before: Mapping[str, Any], changes: Mapping[str, Any]) -> PretrainOptions:
    """The run's options with those changed that may be. ConfigError for any other difference.

    "auto" and ``max_time`` were decided when the run began, so that its command may be given again as it was.
    """
    changes = {name: value for name, value in changes.items() if name != "max_time" and value != "auto"}
    changed = PretrainOptions.from_mapping({**before, **changes})
    for name, value in changed.to_dict().items():
        if name in changes and name not in CHANGEABLE | _NEARLY and value != before.get(name):
            raise ConfigError(
                f"{name} was {before.get(name)!r} when this run began and cannot become {value!r}: leave it out to "
                "resume, or begin another run"
            )
    return changed


def _settle(threads: int | None, device: torch.device) -> None:
    """Set this process up for training: threads and, on the CPU, freed memory kept for the next step (about a tenth of
    a step's time goes into mapping it anew)."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        with contextlib.suppress(ImportError):  # without the native library the reader is going to say what to do
            import_module("electra_fast._native").keep_freed_memory()


def _origin(reasons: list[str]) -> str:
    versions = f"electra_fast {electra_fast.__version__}, torch {torch.__version__}, {platform.machine()}"
    return "\n".join([f"Everything that this run of {versions} depends on. Repeat it with --config.", *reasons])
