"""A fine-tuned directory: a Hugging Face layout, and ``task.json`` with what the task knows.

``task.json``: ``format`` (1), ``task`` (a key of `TASKS`), ``state`` (`Task.state`), ``hygiene`` (the policy for its
texts), ``figures`` (of the held-out data), ``versions``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import electra_fast
from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.files import write_text

from .task import Task, task_class

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

TASK_NAME = "task.json"
BEST_NAME = "best"
_FORMAT = 1


def save_model(
    directory: str | Path,
    task: Task,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    policy: HygienePolicy,
    figures: Mapping[str, float],
) -> None:
    """Write a fine-tuned directory, task.json last: without it, the directory is no model."""
    import torch
    import transformers

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / TASK_NAME).unlink(missing_ok=True)
    task.save(model, directory)
    tokenizer.save_pretrained(directory)
    values = {
        "format": _FORMAT,
        "task": task.name,
        "state": task.state(),
        "hygiene": dataclasses.asdict(policy),
        "figures": dict(figures),
        "versions": {
            "electra_fast": electra_fast.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    write_text(directory / TASK_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def find_model(path: str | Path) -> Path:
    """The fine-tuned directory in ``path``: itself, or the best of a fine-tuning run.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (Path(path), Path(path) / BEST_NAME):
        if (folder / TASK_NAME).is_file():
            return folder
    if not Path(path).exists():
        raise CheckpointError(f"there is no directory {path}")
    raise CheckpointError(
        f"{path} holds no fine-tuned model (no {TASK_NAME}): give the output of electra-fast finetune, or best/ in it"
    )


def load_task_file(directory: Path) -> tuple[Task, HygienePolicy, dict[str, Any]]:
    """The task, the policy for its texts, and everything else that task.json says.

    Raises:
        CheckpointError: task.json is damaged, or of a later version of this package.
    """
    path = directory / TASK_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, and this version reads {_FORMAT}: install a newer electra-fast"
            )
        return task_class(values["task"]).from_state(values["state"]), HygienePolicy(**values["hygiene"]), values
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from None
