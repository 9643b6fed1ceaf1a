"""What a task is: the one interface between data, training, evaluation, prediction and serving.

A task is a frozen dataclass. Its fields are all that has to be known to read a file, to make a model's input of it and
to make an answer of what the model returns; they are plain values, and are kept as ``task.json`` in a fine-tuned
directory. Its methods are pure functions. They take and return *columns*, ``{name: list}``, all lists of equal length:
what ``dataset[:]`` of a `datasets.Dataset` is, what a tokenizer takes, and cheap to make for a single request.

Three kinds of columns are told apart:

- *examples*: one entry for each thing to be judged, under the task's canonical names (`inputs`, and what it is labelled
  with), whatever the columns of the user's file are called;
- *rows*: one entry for each sequence that the model reads; several rows may belong to an example (a long document, the
  choices of a question), and the column ``example`` says which;
- *predictions*: one ``dict`` of JSON values for each example.

From file to figures: ``read → clean → learn → features → collate → (loss | infer) → decode → score``.

To add a task: a module in ``tasks/``, one line in `TASKS`.
"""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from electra_fast.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Self

    from electra_fast.data.hygiene import HygienePolicy, HygieneReport

    from .options import FinetuneOptions

Columns = Mapping[str, Sequence[Any]]

# The name on the command line and in task.json, and where the class is: imported only when it is asked for.
TASKS: dict[str, str] = {
    "classification": "classification:Classification",
    "ner": "tokens:TokenClassification",
    "qa": "questions:QuestionAnswering",
    "choice": "choice:MultipleChoice",
    "translation": "translation:Translation",
}


def task_class(name: str) -> type[Task]:
    """The class of a task by its name. ConfigError: there is none of that name."""
    if name not in TASKS:
        raise ConfigError(f"task must be {', '.join(list(TASKS)[:-1])} or {list(TASKS)[-1]}, got {name!r}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(import_module(f"electra_fast.workflows.finetuning.tasks.{module}"), attribute)


@dataclasses.dataclass(frozen=True)
class Task(ABC):
    """Everything that is particular to a task. Subclasses are frozen dataclasses of JSON values.

    Attributes:
        max_length: most tokens of a row; longer ones are cut (or made into several).
    """

    name: ClassVar[str]
    """The key in `TASKS`."""
    texts: ClassVar[tuple[str, ...]]
    """Those of them that hold text to be normalised (strings, or lists of strings)."""
    label: ClassVar[str]
    """Column of examples that holds what is to be learned."""
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "labels")
    """Columns of rows that the model's forward pass takes, besides the attention mask."""
    default_epochs: ClassVar[float] = 3.0
    """Of ELECTRA's recipe; sets of a few thousand rows get 10 where this is 3."""
    default_batch_size: ClassVar[int] = 32
    """Rows of an optimiser step."""
    default_optimizer: ClassVar[tuple[str, float]] = ("electra", 0.999)
    """Its name, and the decay of the mean of the squares."""

    max_length: int

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Columns of examples that a prediction needs; the first is what a bare string stands for.

        Where it is always the same, a subclass has ``inputs: ClassVar = (…)`` instead of a property.
        """

    @property
    @abstractmethod
    def metric(self) -> str:
        """Key of `score` by which checkpoints are compared; larger is better."""

    @classmethod
    @abstractmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Self:
        """The task before any data is seen: columns, formats, `max_length`.

        Args:
            longest: most tokens that the checkpoint reads; `max_length` may not exceed it.

        Raises:
            ConfigError: an option that does not fit the task.
        """

    def state(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The task that `state` was called on. JSON turns tuples into lists: they are turned back."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in state.items()})

    @abstractmethod
    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        """Examples of a file in one of the task's formats, under canonical names, all columns else left out.

        Missing texts and labels (an empty field, null) come as None and are dealt with in `clean`.

        Args:
            labelled: whether labels have to be there; otherwise they are taken if they are.

        Raises:
            DataError: the file is missing or damaged, lacks a column, or a row is of another kind; names file and line.
        """

    def clean(self, examples: Dataset, policy: HygienePolicy) -> tuple[Dataset, HygieneReport]:
        """Normalise texts, deal with what is missing or there twice, and count it (`electra_fast.data.hygiene.clean`).

        A task whose labels point into the texts has to move them along, and overrides this.
        """
        from electra_fast.data.hygiene import clean

        return clean(examples, policy, texts=self.texts, label=self.label)

    def learn(self, train: Dataset) -> Self:
        """The task with what training data tell: the names of the labels, their weights. Default: nothing is learned.

        Raises:
            DataError: the labels cannot be used (a single class, …).
        """
        return self

    def between_steps(self) -> Self:
        """The task as checkpoints are compared by while training goes on. Default: as it is."""
        return self

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """One input of a prediction as an example: a string, or a mapping with the columns of `inputs`.

        Raises:
            DataError: something is missing, or no text; what was expected is named.
        """
        given = {self.inputs[0]: item} if isinstance(item, str) else item
        if not isinstance(given, Mapping):
            raise DataError(f"an input must be a text or an object with {_listed(self.inputs)}, got {_shown(item)}")
        for name in self.inputs:
            if not isinstance(given.get(name), str):
                raise DataError(f"an input for {self.name} needs the text {name!r}, got {_shown(given.get(name))}")
        return {name: given[name] for name in self.inputs}

    @abstractmethod
    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        """A `transformers` model with this task's head (or one of ours), labels in its configuration, in float32.

        What the checkpoint has no weights for is drawn from torch's generator, which the caller has seeded.

        Args:
            checkpoint: a directory or name that `checkpoint.resolve` returned.
            pretrained: False: all weights are drawn, the checkpoint gives the configuration alone.
            dropout: of embeddings, layers, attention and head.
        """

    @abstractmethod
    def load(self, directory: str | Path) -> nn.Module:
        """The model of a fine-tuned directory, all weights from its safetensors."""

    def save(self, model: nn.Module, directory: str | Path) -> None:
        """Write what `load` reads: config.json and model.safetensors; tokenizer and task.json are written by others."""
        model.save_pretrained(directory)

    @abstractmethod
    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        """Rows of some examples: ``example`` (index into them), ``input_ids``, ``token_type_ids``, …

        A column ``cut`` (true where something of an example was cut off) is counted and reported.

        Args:
            training: with `labels` (or what the model calls its targets); False: with what `decode` needs, and the
                examples may have no labels.
        """

    def row_lengths(self, rows: Columns) -> list[int]:
        """Tokens of every row, by which batches are filled."""
        return [len(ids) for ids in rows["input_ids"]]

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
        """A batch for the model: `model_inputs` padded to the longest row, and the attention mask."""
        from .collate import pad_rows

        return pad_rows(rows, self.model_inputs, pad_id)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a batch, with its gradient. Default: the model's own."""
        return model(**batch).loss

    def infer(self, model: nn.Module, batch: dict[str, Tensor]) -> list[Any]:
        """What the model says of each row of a batch without labels, as numpy arrays of float32 on the CPU.

        Default: ``logits[i]``, cut to the row's tokens where there are logits for each of them.
        """
        logits = model(**batch).logits.float().cpu().numpy()
        mask = batch["attention_mask"]
        if logits.ndim == 3 and logits.shape[:2] == tuple(mask.shape):
            return [row[:length] for row, length in zip(logits, mask.sum(1).tolist(), strict=True)]
        return list(logits)

    @abstractmethod
    def decode(self, outputs: Sequence[Any], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """One prediction, of JSON values, for each example.

        Args:
            outputs: of `infer`, one for each row, in their order.
            rows: all rows of these examples (``features(…, training=False)``).
        """

    def settle(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> Self:
        """The task with what only predictions of held-out data can tell (a threshold), saved beside the best model.

        Default: nothing is settled.
        """
        return self

    @abstractmethod
    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """Figures of predictions against the examples' labels; `metric` is among them."""


def check_known(label: str | None, labels: Sequence[str], where: str) -> None:
    """DataError for a label that was not in the training data; begins with ``where``, suggests the nearest."""
    if label is None or label in labels:
        return
    near = difflib.get_close_matches(label, labels, n=1)
    shown = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"there are {shown}"
    raise DataError(f"{where}: {label!r} is not among the labels of the training data: {hint}")


def refuse_fill_label(options: FinetuneOptions, what: str) -> None:
    """ConfigError for an option fill_label where labels are no words: ``what`` they are instead."""
    if options.fill_label is not None:
        raise ConfigError(f"fill_label is for labels that are words or numbers, not {what}: use missing drop or refuse")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
