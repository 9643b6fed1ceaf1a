"""``electra-fast tune``: a search over options of fine-tuning. The options are those of finetune and `TuneOptions`."""

from __future__ import annotations

import inspect
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from electra_fast.cli.finetune import COMMON, finetune_parameters, merged
from electra_fast.cli.options import given as options_given
from electra_fast.cli.options import parameters
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.tuning.options import TuneOptions

_EXAMPLES = (
    "electra-fast tune classification --model runs/small --train train.tsv --dev dev.tsv --output runs/search",
    "electra-fast tune classification --model runs/small --train train.tsv --output runs/search --max-time 1h "
    "--search learning_rate=log:1e-5:5e-4 --search epochs=int:2:5 --search batch_size=16,32",
    "electra-fast tune ner --model runs/small --train train.conll --output runs/grid --sampler grid "
    "--search learning_rate=1e-4,3e-4 --search layer_decay=0.7,0.8,0.9 --seeds 0,1",
    "electra-fast finetune classification --config runs/search/best.toml --output runs/again",
)


def tune(task: Enum, config: Path | None, **given: Any) -> None:
    """Parse, call, show."""
    from electra_fast.workflows import tuning

    names = TuneOptions.__dataclass_fields__
    values = options_given(given)
    search = TuneOptions(**{name: value for name, value in values.items() if name in names})
    others = {name: value for name, value in values.items() if name not in names}
    result = tuning.tune(FinetuneOptions.from_mapping(merged(task, config, others)), search)
    if result.signal is not None:
        sys.exit(128 + result.signal)


tune.__doc__ = (
    "Search the options of fine-tuning that do best on held-out data, and train with them.\n\n"
    "Grid, random or Bayesian (TPE) search; trials that fall behind are pruned. Writes study.db, best.toml (a --config "
    "for finetune), summary.json, plots/ and final/, a run with the best options and new seeds. Ctrl-C loses nothing: "
    "the same command goes on, and with more --trials or --max-time it searches on.\n\n[bold]Examples[/]\n\n"
    + "\n\n".join(f"  $ {line}" for line in _EXAMPLES)
)
_KINDS = {"search": list[str], "space": Path, "max_time": str}
tune.__signature__ = inspect.Signature(
    [*finetune_parameters(COMMON), *parameters(TuneOptions, {}, kinds=_KINDS, short={}, panels={})]
)
tune.__annotations__ = {name: p.annotation for name, p in tune.__signature__.parameters.items()}
