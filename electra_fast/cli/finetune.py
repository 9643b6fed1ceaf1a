"""``electra-fast finetune``: a pretrained ELECTRA to a model for a task. The options are those of `FinetuneOptions`."""

from __future__ import annotations

import inspect
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from electra_fast.cli.mistakes import FileMistake
from electra_fast.cli.options import given as options_given
from electra_fast.cli.options import parameters, plain
from electra_fast.errors import ConfigError
from electra_fast.workflows.finetuning.options import PATHS, FinetuneOptions

_EXAMPLES = (
    "electra-fast finetune classification --model runs/small --train train.tsv --dev dev.tsv --output runs/sentiment",
    "electra-fast finetune classification --model runs/small --train pairs.csv --text-column a --pair-column b "
    "--output runs/pairs --seeds 0,1,2",
    "electra-fast finetune ner --model runs/small --train train.conll --dev dev.conll --output runs/ner",
    "electra-fast finetune qa --model runs/small --train train.json --dev dev.json --output runs/qa",
    "electra-fast finetune classification --output runs/sentiment --resume",
)
_SHORT = {"model": "-m", "output": "-o"}
_PANELS = {name: f"{name} (the recipe's values unless given)" for name in ("Schedule", "Optimiser")}
_TASKS = next(f for f in FinetuneOptions.__dataclass_fields__.values() if f.name == "task").metadata["choices"]


def finetune(task: Enum, config: Path | None, resume: bool, auto_resume: bool, **given: Any) -> None:
    """Parse, call, show."""
    from electra_fast.workflows import finetuning

    options = merged(task, config, options_given(given))
    if resume:
        result = finetuning.resume(FinetuneOptions.from_mapping(options).output_path, options)
    else:
        result = finetuning.finetune(FinetuneOptions.from_mapping(options), or_resume=auto_resume)
    if result.signal is not None:
        sys.exit(128 + result.signal)


def merged(task: Enum, config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a file, and those of the command line, which count more."""
    from electra_fast.workflows.pretraining.config_file import read_config

    try:
        options = {} if config is None else read_config(config, FinetuneOptions)
    except ConfigError as error:
        raise FileMistake(str(error)) from None
    return options | {"task": plain(task), **given}


finetune.__doc__ = (
    "Fine-tune a pretrained ELECTRA on a task: classification, ner, qa (question answering), choice or translation.\n\n"
    "Writes best/ (a Hugging Face directory for predict, evaluate, serve and export), summary.json (median and spread "
    "of every figure over the seeds), metrics.jsonl and curves.png. Ctrl-C saves a checkpoint; --resume goes on from "
    "it.\n\n[bold]Examples[/]\n\n" + "\n\n".join(f"  $ {line}" for line in _EXAMPLES)
)

# What the other commands that fine-tune have in common with this one.
COMMON = {
    "task": (
        Enum("task", {name: name for name in _TASKS}, type=str),
        typer.Argument(help=f"{', '.join(_TASKS[:-1])} or {_TASKS[-1]}.", show_default=False),
    ),
    "config": (Path | None, typer.Option(help="TOML file of options; those given here count more.")),
}
_OWN = {
    **COMMON,
    "resume": (bool, typer.Option("--resume", help="Go on with the run in --output.")),
    "auto_resume": (bool, typer.Option("--auto-resume", help="Go on with the run in --output if there is one.")),
}


def finetune_parameters(own: dict[str, tuple[Any, Any]]) -> list[inspect.Parameter]:
    """Parameters of a command: its own, and the options of fine-tuning."""
    kinds = {**dict.fromkeys(PATHS, Path), "model": str, "seeds": str}
    left_out = frozenset(("task",))
    return list(parameters(FinetuneOptions, own, kinds=kinds, short=_SHORT, panels=_PANELS, left_out=left_out))


finetune.__signature__ = inspect.Signature(finetune_parameters(_OWN))
finetune.__annotations__ = {name: p.annotation for name, p in finetune.__signature__.parameters.items()}
