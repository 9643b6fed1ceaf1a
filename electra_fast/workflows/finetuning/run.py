"""The two ways into a fine-tuning run: beginning one, and going on with one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_fast.data.job import open_directory
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.extras import require
from electra_fast.workflows.pretraining.config_file import read_config

from .options import CHANGEABLE, FinetuneOptions

CONFIG_NAME = "config.toml"
Listener = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Attributes:
        output: its directory. model: that of the best model; None if a signal ended the run.
        summary: what summary.json holds; empty if a signal ended the run.
        signal: the number of the signal, or None.
    """

    output: Path
    model: Path | None
    summary: dict[str, Any]
    signal: int | None


def finetune(
    options: FinetuneOptions, *, or_resume: bool = False, on_evaluation: Listener | None = None
) -> FinetuneResult:
    """Fine-tune a pretrained ELECTRA on a task, once for each seed, in ``options.output``.

    Writes config.toml, seed-N/ (checkpoints while it is at work, best/, result.json), and at the end best/ (the model
    to use), summary.json, metrics.jsonl and curves.png. SIGINT, SIGTERM and SIGUSR1 write a checkpoint and return.

    Args:
        or_resume: go on with the run that ``options.output`` holds, if it does.
        on_evaluation: called with seed, step and figures after each evaluation; what it raises ends the run.

    Raises:
        ElectraError: the subclass says which of options, data, checkpoint or disk cannot be used.
        DivergenceError: the loss is not finite.
    """
    _check_libraries()
    with _held(options.output_path) as output:
        if (output / CONFIG_NAME).exists():
            if not or_resume:
                raise ConfigError(
                    f"{output} already holds a run: continue it with --resume, or choose another --output"
                )
            return _resume(output, options.to_dict(), on_evaluation)
        from .seeds import begin

        return FinetuneResult(output, *begin(output, options, on_evaluation))


def resume(
    output: str | Path, changes: Mapping[str, Any] | None = None, *, on_evaluation: Listener | None = None
) -> FinetuneResult:
    """Go on with the run in ``output``: seeds that are done are kept, the one at work goes on from its checkpoint, to
    the same weights.

    Args:
        changes: options given anew; only those that do not change what is learned may differ (`CHANGEABLE`).

    Raises:
        CheckpointError: there is no run, or its data have changed. ConfigError: a change that may not be.
    """
    _check_libraries()
    output = Path(output)
    if not (output / CONFIG_NAME).exists():
        raise CheckpointError(f"there is no run to resume in {output}: leave out --resume to begin one")
    with _held(output):
        return _resume(output, changes or {}, on_evaluation)


def _resume(output: Path, changes: Mapping[str, Any], on_evaluation: Listener | None) -> FinetuneResult:
    from .seeds import go_on

    before = read_config(output / CONFIG_NAME, FinetuneOptions)
    return FinetuneResult(output, *go_on(output, _changed(before, {**changes, "output": str(output)}), on_evaluation))


def _changed(before: Mapping[str, Any], changes: Mapping[str, Any]) -> FinetuneOptions:
    """The run's options with those changed that may be; "auto" was decided when it began."""
    changes = {name: value for name, value in changes.items() if value != "auto"}
    begun = FinetuneOptions.from_mapping(before)
    changed = FinetuneOptions.from_mapping({**before, **changes})
    for name in changes:
        one, other = getattr(begun, name), getattr(changed, name)
        if name not in CHANGEABLE and one != other:
            raise ConfigError(
                f"{name} was {one!r} when this run began and cannot become {other!r}: leave it out to resume, or begin "
                "another run"
            )
    return changed


@contextlib.contextmanager
def _held(output: Path) -> Iterator[Path]:
    """The run's directory, made if need be and gone again if nothing came of it; no other run may write to it."""
    with open_directory(output) as created:
        try:
            yield output
        except BaseException:
            if created and not any(output.iterdir()):
                output.rmdir()
            raise


def _check_libraries() -> None:
    for module in ("transformers", "accelerate", "datasets", "sklearn"):
        require(module, "finetune", "fine-tuning")
