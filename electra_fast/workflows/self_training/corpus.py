"""The data of self-training: labelled examples in files of one form, and text without labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.tables import open_text
from electra_fast.errors import ConfigError, DataError
from electra_fast.extras import require
from electra_fast.files import atomic_writer
from electra_fast.workflows.finetuning.checkpoint import load_config, load_tokenizer, resolve
from electra_fast.workflows.finetuning.preparation import policy_of, read_splits
from electra_fast.workflows.finetuning.row_weights import WEIGHT
from electra_fast.workflows.finetuning.task import task_class

from .layout import LABELLED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from electra_fast.data.hygiene import HygienePolicy
    from electra_fast.workflows.finetuning.options import FinetuneOptions
    from electra_fast.workflows.finetuning.task import Task

    from .options import SelfTrainOptions

TRUTH = "truth"  # labels that the file of unlabelled text has all the same: counted against, never trained on
_COMPRESSED = (".gz", ".xz", ".bz2")


@dataclass(frozen=True)
class Data:
    """What all rounds share.

    Attributes:
        task: with its labels. train: the labelled examples. unlabelled: texts to label.
        metric: the figure by which rounds are compared.
    """

    task: Task
    train: Dataset
    unlabelled: Dataset
    metric: str


def prepare(output: Path, options: FinetuneOptions, training: SelfTrainOptions, say: Callable[[str], None]) -> Data:
    """Read, check and clean all data, and write what is labelled in one form, unless it is written."""
    checkpoint = resolve(options.required("model"))
    longest = load_config(checkpoint).max_position_embeddings
    task, splits = read_splits(options, longest)
    if task.state().get("problem") == "regression":
        raise ConfigError("self-training needs labels that have a probability, and the label column holds numbers")
    for note in splits.notes():
        say(note)
    named = splits.named()
    unlabelled, left_out = read_unlabelled(
        training.unlabelled,
        task_class(options.task).from_options(options, longest),
        policy_of(options),
        load_tokenizer(checkpoint),
        [split.examples for split in named.values()],
    )
    for reason, count in left_out.items():
        say(f"unlabelled: {count:,} texts left out: {reason}")
    for name, split in named.items():
        path = output / (LABELLED if name == "train" else f"{name}.jsonl")
        if not path.exists():
            weight = {WEIGHT: 1.0} if name == "train" else {}
            write_rows(path, ({**row, **weight} for row in split.examples))
    return Data(task, splits.train.examples, unlabelled, options.metric or task.metric)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as jsonl, atomically."""
    with atomic_writer(path) as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_unlabelled(
    path: str | Path, task: Task, policy: HygienePolicy, tokenizer: PreTrainedTokenizerBase, known: Iterable[Dataset]
) -> tuple[Dataset, dict[str, int]]:
    """Texts to label, each once, in the task's columns; `TRUTH` if the file has labels.

    Args:
        path: ``.txt`` (or ``.txt.gz``, …) with a text a line, or what the task reads.
        task: as it was before any data was seen: labels that it has not learned are no mistake here.
        known: labelled examples; texts that are among them are left out.

    Returns:
        The examples, and how many were left out, by reason.

    Raises:
        DataError: the file is missing or damaged, or nothing is left of it.
    """
    path = Path(path)
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED else path
    examples = _lines(path, task) if name.suffix.lower() == ".txt" else task.read(path, labelled=False)
    if task.label in examples.column_names:
        examples = examples.rename_column(task.label, TRUTH)
    if "tokens" in task.texts and "tokens" not in examples.column_names:
        examples = _in_words(examples, tokenizer)
    count = len(examples)
    examples, _ = task.clean(examples, policy)
    left_out = {"without text": count - len(examples)}
    columns = [column for column in task.texts if column in examples.column_names]
    seen = {key for data in known for key in _keys(data, columns)}
    labelled = len(seen)
    kept = []
    for row, key in enumerate(_keys(examples, columns)):
        if key not in seen:
            seen.add(key)
            kept.append(row)
    left_out["there before, or among the labelled"] = len(examples) - len(kept)
    if not kept:
        raise DataError(f"{path} has no text that is not among the {labelled} labelled ones")
    return examples.select(kept), {reason: number for reason, number in left_out.items() if number}


def _lines(path: Path, task: Task) -> Dataset:
    datasets = require("datasets", "finetune", "self-training")
    with open_text(path) as stream:
        texts = [line.strip() for line in stream if line.strip()]
    if not texts:
        raise DataError(f"{path} holds no text")
    if len(task.inputs) > 1:
        raise DataError(f"{path} has one text a line, and the task needs {' and '.join(task.inputs)}: give a table")
    return datasets.Dataset.from_dict({"text": texts})


def _in_words(examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Texts as lists of words, as tags are given to them."""
    from electra_fast.workflows.finetuning.tasks.words import split_words

    words = [sentence.words for sentence in split_words(tokenizer, list(examples["text"]))]
    return examples.add_column("tokens", words).remove_columns("text")


def _keys(examples: Dataset, columns: list[str]) -> Iterable[tuple[Any, ...]]:
    lists = (list(examples[column]) for column in columns)
    for values in zip(*lists, strict=True):
        yield tuple(tuple(value) if isinstance(value, list) else value for value in values)
