"""``electra-fast pretrain``: token shards to trained networks. The options are the fields of `PretrainOptions`."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from electra_fast.cli.mistakes import FileMistake
from electra_fast.errors import ConfigError
from electra_fast.workflows.pretraining.options import PATHS, PretrainOptions

_EXAMPLES = (
    "electra-fast pretrain --data corpus --output runs/small --model small",
    "electra-fast pretrain --data corpus --output runs/quick --max-time 20m --num-hidden-layers 4 --batch-size 16",
    "electra-fast pretrain --config runs/small/config.toml --output runs/again --seed 1",
    "electra-fast pretrain --data wiki --data books --data-weights 0.7,0.3 --output runs/mixed",
    "electra-fast pretrain --data corpus --output runs/more --init runs/small --learning-rate 1e-4",
    "electra-fast pretrain --output runs/small --resume",
)
_SHORT = {"data": "-d", "output": "-o"}
_PANELS = {
    name: f"{name} (the size's values unless given)" for name in ("Schedule", "Optimiser", "Objective", "Network")
}


def pretrain(config: Path | None, resume: bool, auto_resume: bool, **given: Any) -> None:
    """Parse, call, show."""
    from electra_fast.workflows import pretraining
    from electra_fast.workflows.pretraining.config_file import read_config

    try:
        options = {} if config is None else read_config(config)
    except ConfigError as error:
        raise FileMistake(str(error)) from None
    options |= {name: _plain(value) for name, value in given.items() if value is not None and value != []}
    if resume:
        output = PretrainOptions.from_mapping(options).output_path
        result = pretraining.resume(output, options)
    else:
        result = pretraining.pretrain(PretrainOptions.from_mapping(options), or_resume=auto_resume)
    if result.signal is not None:
        sys.exit(128 + result.signal)


pretrain.__doc__ = (
    "Pretrain a generator and a discriminator on a corpus that prepare wrote.\n\n"
    "Writes checkpoints, metrics.jsonl, config.toml (every option of the run) and, at the end, model/ (two Hugging "
    "Face directories), curves.png and summary.json. Ctrl-C saves a checkpoint; --resume continues to the same losses, "
    "to the last bit.\n\n[bold]Examples[/]\n\n" + "\n\n".join(f"  $ {line}" for line in _EXAMPLES)
)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _parameters() -> Iterator[inspect.Parameter]:
    """The command's parameters: three of its own, then one for each option, without a value unless given."""
    own = {
        "config": (Path | None, typer.Option(help="TOML file of options; those given here count more.")),
        "resume": (bool, typer.Option("--resume", help="Continue the run in --output from its newest checkpoint.")),
        "auto_resume": (
            bool,
            typer.Option("--auto-resume", help="Continue the run in --output if there is one, else begin it."),
        ),
    }
    hints = get_type_hints(PretrainOptions)
    for field in dataclasses.fields(PretrainOptions):
        kind = hints[field.name]
        if field.name == "data":
            kind = list[str]
        elif field.name in PATHS:
            kind = Path
        elif field.name in ("max_time", "data_weights"):
            kind = str
        elif field.metadata["choices"]:
            kind = Enum(field.name, {choice: choice for choice in field.metadata["choices"]}, type=str)
        flag = f"--{field.name.replace('_', '-')}"
        flags = [f"{flag}/--no-{flag[2:]}" if kind in (bool, bool | None) else flag, *field.metadata["flags"]]
        if field.name in _SHORT:
            flags.append(_SHORT[field.name])
        default = "" if field.default is None else f" [dim]\\[default: {_default(field.default)}][/]"
        option = typer.Option(
            *flags,
            help=field.metadata["help"] + default,
            rich_help_panel=_PANELS.get(field.metadata["panel"], field.metadata["panel"]),
            show_default=False,
        )
        own[field.name] = (kind | None, option)
    for name, (kind, option) in own.items():
        default = False if kind is bool else None
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def _default(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


pretrain.__signature__ = inspect.Signature(list(_parameters()))
pretrain.__annotations__ = {name: p.annotation for name, p in pretrain.__signature__.parameters.items()}
