"""``electra-fast pretrain``: token shards to trained networks. The options are the fields of `PretrainOptions`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from electra_fast.cli.mistakes import FileMistake
from electra_fast.cli.options import given as options_given
from electra_fast.cli.options import parameters
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
    options |= options_given(given)
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


_OWN = {
    "config": (Path | None, typer.Option(help="TOML file of options; those given here count more.")),
    "resume": (bool, typer.Option("--resume", help="Continue the run in --output from its newest checkpoint.")),
    "auto_resume": (
        bool,
        typer.Option("--auto-resume", help="Continue the run in --output if there is one, else begin it."),
    ),
}
_KINDS = {"data": list[str], **dict.fromkeys(PATHS, Path), "max_time": str, "data_weights": str}
pretrain.__signature__ = inspect.Signature(
    list(parameters(PretrainOptions, _OWN, kinds=_KINDS, short=_SHORT, panels=_PANELS))
)
pretrain.__annotations__ = {name: p.annotation for name, p in pretrain.__signature__.parameters.items()}
