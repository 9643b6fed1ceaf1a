"""Self-training from beginning to end: train, label, train on both, as long as held-out data say that it helps.

Source of the scheme: Yarowsky, "Unsupervised word sense disambiguation rivaling supervised methods" (ACL 1995); every
round starts again from the pretrained checkpoint and labels anew, so that a wrong label need not stay.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.job import open_directory
from electra_fast.errors import ConfigError
from electra_fast.extras import require
from electra_fast.files import write_text
from electra_fast.workflows.finetuning.model_directory import TASK_NAME
from electra_fast.workflows.finetuning.options import CHANGEABLE, FinetuneOptions
from electra_fast.workflows.finetuning.row_weights import WEIGHT

from .layout import BEST, LABELLED, RUN, round_folder
from .options import SelfTrainOptions

if TYPE_CHECKING:
    from .corpus import Data

_FACTS = "selftrain.json"
_RECORD = "round.json"
_COLUMNS = ("text_column", "pair_column", "label_column", "weight_column")


@dataclass(frozen=True)
class SelfTrainResult:
    """What self-training came to.

    Attributes:
        output: its directory. model: the best round's model; None if a signal ended the first round.
        rounds: the record of each (`summary.json` has them, too). best: the number of the best.
        signal: the number of the signal that ended it early, or None.
    """

    output: Path
    model: Path | None
    rounds: list[dict[str, Any]]
    best: int | None
    signal: int | None


def selftrain(options: FinetuneOptions, training: SelfTrainOptions) -> SelfTrainResult:
    """Train on labelled data, then in rounds on these and what the round before is sure of in unlabelled text.

    Writes labelled.jsonl and dev.jsonl (the data in one form), round-N/ (pseudo.jsonl, train.jsonl, run/, round.json),
    best/ (the best round's model) and summary.json. A round that is worse than the best before it is the last; so is
    one that finds nothing new. Called again with the same options it goes on where it was interrupted; ``rounds`` may
    be raised.

    Args:
        options: of the fine-tuning of every round.

    Raises:
        ConfigError: an option, or a task that is not classification or ner; or ``options.output`` holds another run.
        ElectraError: as `finetune`.
    """
    if options.task not in ("classification", "ner"):
        raise ConfigError(f"self-training labels classification and ner, got task {options.task!r}")
    if training.balanced and options.task == "ner":
        raise ConfigError("balanced is for classification: a sentence has no one label whose share could be kept")
    if options.weight_column is not None:
        raise ConfigError("weight_column is self-training's own: leave it out, and use pseudo_weight")
    require("datasets", "finetune", "self-training")
    from .corpus import prepare

    with open_directory(options.output_path):
        output = options.output_path
        _check_facts(output, options, training)
        data = prepare(output, options, training, _say)
        rounds: list[dict[str, Any]] = []
        signal, best = None, None
        for number in range(training.rounds + 1):
            record, signal = _round(output, number, data, options, training)
            if record is None:
                break
            rounds.append(record)
            _say(_told(record, data.metric))
            if best is None or record["value"] > best["value"]:
                best = record
            elif record["value"] < best["value"]:
                _say(f"round {number} is worse than round {best['round']}: stopping")
                break
        if best is None or signal is not None:
            _say("stopped; the same command goes on")
            return SelfTrainResult(output, None, rounds, None, signal)
        _say(f"The best is round {best['round']}; its model is in {output / BEST}.")
        summary = {"metric": data.metric, "best": best["round"], "rounds": rounds}
        write_text(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        _publish(round_folder(output, best["round"]) / RUN / BEST, output / BEST, options)
        return SelfTrainResult(output, output / BEST, rounds, best["round"], None)


def _round(
    output: Path, number: int, data: Data, options: FinetuneOptions, training: SelfTrainOptions
) -> tuple[dict[str, Any] | None, int | None]:
    """A round's record, of its round.json if it is done; None, and the signal if there was one, ends self-training."""
    from electra_fast.workflows.finetuning import finetune

    from .labelling import label_round

    folder = round_folder(output, number)
    if (folder / _RECORD).exists():
        return json.loads((folder / _RECORD).read_text(encoding="utf-8")), None
    folder.mkdir(exist_ok=True)
    counts: dict[str, Any] = {"labelled": len(data.train), "taken": 0}
    train = output / LABELLED
    if number:
        labelled = label_round(output, number, data, options, training, _say)
        if labelled is None:
            return None, None
        train, counts = labelled
    columns = {name: getattr(data.task, name) for name in ("problem",) if hasattr(data.task, name)}
    columns |= dict.fromkeys(_COLUMNS) | {"weight_column": WEIGHT}
    files = {"train": str(train), "dev": str(output / "dev.jsonl"), "output": str(folder / RUN)}
    if options.test is not None:
        files["test"] = str(output / "test.jsonl")
    _say(f"round {number}: training on {counts['labelled']:,} labelled and {counts['taken']:,} self-labelled rows")
    result = finetune(dataclasses.replace(options, **columns, **files), or_resume=True)
    if result.signal is not None:
        return None, result.signal
    of = result.summary["figures"]
    record = {"round": number, **counts, "value": of[data.metric]["median"], "figures": of}
    if "test" in result.summary:
        record["test"] = result.summary["test"]
    write_text(folder / _RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record, None


def _check_facts(output: Path, options: FinetuneOptions, training: SelfTrainOptions) -> None:
    """ConfigError if the directory holds self-training with other options or data."""
    from electra_fast.workflows.finetuning.preparation import fingerprint

    facts = {name: value for name, value in options.to_dict().items() if name not in CHANGEABLE}
    facts |= {name: value for name, value in dataclasses.asdict(training).items() if name != "rounds"}
    files = {"unlabelled": training.unlabelled, **{name: getattr(options, name) for name in ("train", "dev", "test")}}
    for name, path in files.items():
        if path is not None and Path(path).exists():
            facts[f"sha256 of {name}"] = fingerprint(path)
    path = output / _FACTS
    if not path.exists():
        write_text(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for name in (*facts, *before):
        if facts.get(name) != before.get(name):
            raise ConfigError(
                f"{output} holds self-training with {name} = {before.get(name)!r}, now it is {facts.get(name)!r}: "
                "give the same options to go on with it, or name another output"
            )


def _publish(model: Path, target: Path, options: FinetuneOptions) -> None:
    """Copy a model, which then knows the columns of the user's files again."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(model, target)
    path = target / TASK_NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in _COLUMNS:
        if name in values["state"]:
            values["state"][name] = getattr(options, name)
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _told(record: Mapping[str, Any], metric: str) -> str:
    """A round in a line."""
    text = f"round {record['round']}: held out: {metric} {record['value']:.4f}"
    if "test" in record:
        text += f", test: {metric} {record['test'][metric]:.4f}"
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
