"""``electra-fast selftrain``: self-training. The options are those of finetune and `SelfTrainOptions`."""

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
from electra_fast.workflows.self_training.options import SelfTrainOptions

_EXAMPLES = (
    "electra-fast selftrain classification --model runs/small --train train.tsv --dev dev.tsv --unlabelled texts.txt "
    "--output runs/selftrained",
    "electra-fast selftrain ner --model runs/small --train train.conll --unlabelled texts.jsonl --confidence 0.95 "
    "--rounds 5 --pseudo-weight 0.5 --output runs/selftrained",
)


def selftrain(task: Enum, config: Path | None, **given: Any) -> None:
    """Parse, call, show."""
    from electra_fast.workflows import self_training

    names = SelfTrainOptions.__dataclass_fields__
    values = options_given(given)
    training = SelfTrainOptions(**{name: value for name, value in values.items() if name in names})
    others = {name: value for name, value in values.items() if name not in names}
    result = self_training.selftrain(FinetuneOptions.from_mapping(merged(task, config, others)), training)
    if result.signal is not None:
        sys.exit(128 + result.signal)


selftrain.__doc__ = (
    "Train on labelled text, label other text, train on both, and so on while held-out data say that it helps.\n\n"
    "For classification and ner. Every round labels anew and starts from the pretrained model; a round that is worse "
    "than the best before it is the last. Writes round-N/ (pseudo.jsonl: what was taken), best/ (the best round's "
    "model) and summary.json. Ctrl-C loses nothing: the same command goes on.\n\n[bold]Examples[/]\n\n"
    + "\n\n".join(f"  $ {line}" for line in _EXAMPLES)
)
_KINDS = {"unlabelled": Path}
selftrain.__signature__ = inspect.Signature(
    [*finetune_parameters(COMMON), *parameters(SelfTrainOptions, {}, kinds=_KINDS, short={}, panels={})]
)
selftrain.__annotations__ = {name: p.annotation for name, p in selftrain.__signature__.parameters.items()}
