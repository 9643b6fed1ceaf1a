"""Multiple choice: which of several answers, or endings, goes best with a context and a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from electra_fast.errors import DataError
from electra_fast.extras import require
from electra_fast.workflows.finetuning.checkpoint import load_model, make_model
from electra_fast.workflows.finetuning.collate import pad_rows
from electra_fast.workflows.finetuning.task import Columns, Task, refuse_fill_label

from .choice_files import read_choices
from .spans import softmax
from .words import whole_characters

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Self

    from electra_fast.workflows.finetuning.options import FinetuneOptions

_LENGTH = 256


@dataclass(frozen=True)
class MultipleChoice(Task):
    """``[CLS] context [SEP] question choice [SEP]`` for each choice, one logit each, softmax over the choices.

    Without a context the question stands in its place. Of what is longer than the model reads the end of the context
    goes first. Where the questions of a batch differ in how many choices they have, empty ones fill up the others: they
    are never right and, in predictions, not looked at.

    Attributes:
        context_column, question_column, label_column: what the columns of files are called; None: looked for.
    """

    name: ClassVar[str] = "choice"
    inputs: ClassVar[tuple[str, ...]] = ("context", "question", "choices")
    texts: ClassVar[tuple[str, ...]] = ("context", "question", "choices")
    label: ClassVar[str] = "label"

    context_column: str | None = None
    question_column: str | None = None
    label_column: str | None = None

    @property
    def metric(self) -> str:
        return "accuracy"

    @classmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Self:
        refuse_fill_label(options, "choices")
        return cls(
            max_length=min(options.max_length or _LENGTH, longest),
            context_column=options.text_column,
            question_column=options.pair_column,
            label_column=options.label_column,
        )

    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        return read_choices(path, self.context_column, self.question_column, self.label_column, labelled=labelled)

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """``context`` or ``question`` or both, and ``choices``, a list of at least two texts."""
        given = item if isinstance(item, Mapping) else {}
        texts = {name: given.get(name) or "" for name in self.inputs[:2]}
        choices = given.get("choices")
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) for c in choices):
            raise DataError(f"an input for choice needs 'choices', a list of two or more texts, got {choices!r:.60}")
        if not all(isinstance(text, str) for text in texts.values()) or not any(map(str.strip, texts.values())):
            raise DataError("an input for choice needs a text 'context' or 'question', or both")
        texts = {name: whole_characters(text) for name, text in texts.items()}
        return texts | {"choices": [whole_characters(choice) for choice in choices]}

    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        return make_model(_head(), checkpoint, pretrained=pretrained, dropout=dropout)

    def load(self, directory: str | Path) -> nn.Module:
        return load_model(_head(), directory)

    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        """A row for each example: ``input_ids`` and ``token_type_ids`` are lists of lists, one for each choice."""
        count = len(examples["choices"])
        nothing = [""] * count
        rows: dict[str, list] = {"example": list(range(count)), "input_ids": [], "token_type_ids": [], "cut": []}
        for context, question, choices in zip(
            examples.get("context", nothing), examples.get("question", nothing), examples["choices"], strict=True
        ):
            context, question = (context, question) if context else (question, "")
            endings = [f"{question} {choice}" if question else choice for choice in choices]
            first, *seconds = tokenizer([context, *endings], add_special_tokens=False, verbose=False)["input_ids"]
            pairs = [self._pair(first, second, tokenizer) for second in seconds]
            rows["input_ids"].append([ids for ids, _ in pairs])
            rows["token_type_ids"].append([types for _, types in pairs])
            rows["cut"].append(len(first) + max(map(len, seconds)) > self.max_length - 3)
        if training:
            rows["labels"] = list(examples["label"])
        return rows

    def _pair(
        self, first: list[int], second: list[int], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
        second = second[: self.max_length - 3]
        first = first[: self.max_length - 3 - len(second)]
        ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id, *second, tokenizer.sep_token_id]
        return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1)

    def row_lengths(self, rows: Columns) -> list[int]:
        """Tokens of all choices, padded to the longest."""
        return [len(choices) * max(map(len, choices)) for choices in rows["input_ids"]]

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
        """``[rows, choices, tokens]``, and ``labels [rows]``."""
        most = max(len(row["input_ids"]) for row in rows)
        flat = []
        for row in rows:
            pairs = list(zip(row["input_ids"], row["token_type_ids"], strict=True))
            cls, sep = row["input_ids"][0][0], row["input_ids"][0][-1]
            for ids, types in pairs + [([cls, sep], [0, 0])] * (most - len(pairs)):
                flat.append({"input_ids": ids, "token_type_ids": types})
        batch = {name: x.unflatten(0, (-1, most)) for name, x in pad_rows(flat, self.model_inputs, pad_id).items()}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    def decode(self, outputs: Sequence[np.ndarray], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """``label`` (the number of the choice, from 0), ``choice`` (its text), ``probability``, ``probabilities``."""
        predictions = []
        for logits, choices in zip(outputs, examples["choices"], strict=True):
            shares = softmax(logits[: len(choices)].tolist())
            label = int(np.argmax(shares))
            predictions.append(
                {"label": label, "choice": choices[label], "probability": shares[label], "probabilities": shares}
            )
        return predictions

    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """``accuracy``."""
        right = [prediction["label"] == label for prediction, label in zip(predictions, examples["label"], strict=True)]
        return {"accuracy": sum(right) / len(right)}


def _head() -> type[nn.Module]:
    return require("transformers", "finetune", "multiple choice").ElectraForMultipleChoice
