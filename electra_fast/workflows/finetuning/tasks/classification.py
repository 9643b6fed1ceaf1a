"""Texts, or pairs of them, to one label, any number of labels, or a number."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from electra_fast.data.hygiene import HygienePolicy, HygieneReport, clean
from electra_fast.data.tables import find_column, read_table
from electra_fast.errors import ConfigError, DataError
from electra_fast.workflows.finetuning.checkpoint import load_model, make_model
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.finetuning.row_weights import WEIGHT, check_weights, read_weights
from electra_fast.workflows.finetuning.task import Columns, Task, check_known

from .label_figures import label_figures, several_figures

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

# What text columns are called in the data sets that people know, each with what its partner is called.
_TEXTS = {
    "text": "text_pair",
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question1": "question2",
    "sentence": "",
    "content": "",
    "review": "",
}
_LABELS = ("label", "labels", "class", "category", "score", "target")
_PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class Classification(Task):
    """Texts or pairs of texts to labels or a number.

    Attributes:
        text_column, pair_column, label_column: what the columns of files are called; None: looked for.
        weight_column: of what a training row counts in the loss; None: all count 1.
        problem: single (softmax), multi (a sigmoid for each label), regression; auto until `learn`.
        label_separator: between the labels of a field in a tsv or csv file.
        labels: their names, sorted; of the model's outputs, in their order.
        pair: whether there is a second text.
        weights: of the labels in the loss; empty: all 1.
        class_weights: the option that they come from.
        label_smoothing: share of a target that is spread over all labels.
        offset, scale: of regression: what the model returns is ``(value - offset) / scale``.
    """

    name: ClassVar[str] = "classification"
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    label: ClassVar[str] = "label"
    model_inputs: ClassVar[tuple[str, ...]] = (*Task.model_inputs, WEIGHT)

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    weight_column: str | None = None
    problem: str = "auto"
    label_separator: str = ","
    labels: tuple[str, ...] = ()
    pair: bool = False
    class_weights: str | None = None
    weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    offset: float = 0.0
    scale: float = 1.0

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.texts if self.pair else self.texts[:1]

    @property
    def metric(self) -> str:
        return {"multi": "f1_micro", "regression": "spearman"}.get(self.problem, "accuracy")

    @classmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Classification:
        if options.problem == "regression" and (options.class_weights or options.label_smoothing):
            raise ConfigError("class_weights and label_smoothing are for labels: leave them out for problem regression")
        names = ("text_column", "pair_column", "label_column", "weight_column", "problem", "label_separator")
        return cls(
            max_length=min(options.max_length or longest, longest),
            class_weights=options.class_weights,
            label_smoothing=options.label_smoothing or 0.0,
            **{name: getattr(options, name) for name in names},
        )

    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        """A table: columns ``text``, ``text_pair`` of pairs, and ``label``: a string, a list of strings, or a float."""
        table = read_table(path)
        text = find_column(table, path, [*_TEXTS], "text_column", self.text_column)
        columns = {"text": _strings(table, text, path)}
        pair = self.pair_column or _TEXTS.get(text)
        if self.pair_column is not None or self.pair or (self.text_column is None and pair in table.column_names):
            pair = find_column(table, path, [pair or "text_pair"], "pair_column", self.pair_column)
            columns["text_pair"] = _strings(table, pair, path)
        there = self.label_column in table.column_names or any(name in table.column_names for name in _LABELS)
        if labelled or there:
            label = find_column(table, path, _LABELS, "label_column", self.label_column)
            columns["label"] = self._labels(list(table[label]), path)
            columns |= read_weights(table, path, self.weight_column)
        from datasets import Dataset

        return Dataset.from_dict(columns)

    def _labels(self, values: list[Any], path: str | Path) -> list[Any]:
        """Labels of the problem's kind. DataError: a value is not; names the row."""
        problem = self.problem if self.problem != "auto" else _told_by(values)
        if problem == "regression":
            return [_number(value, row, path) for row, value in enumerate(values, 1)]
        if problem == "multi":
            values = [self._several(value) for value in values]
        else:
            values = [None if value is None else _name(value, row, path) for row, value in enumerate(values, 1)]
        for row, value in enumerate(values, 1) if self.labels else ():
            for name in value if isinstance(value, list) else [value]:
                check_known(name, self.labels, f"{path}, row {row}")
        return values

    def _several(self, value: Any) -> list[str]:
        """Several labels, or none: an empty field says that no label applies."""
        if value is None:
            return []
        if isinstance(value, list):
            return [str(name) for name in value]
        return [name.strip() for name in str(value).split(self.label_separator) if name.strip()]

    def clean(self, examples: Dataset, policy: HygienePolicy) -> tuple[Dataset, HygieneReport]:
        def filled(value: Any) -> Any:
            return _number(value, 0, "fill_label") if self.problem == "regression" else str(value)

        return clean(examples, policy, texts=self.texts, label=self.label, value=filled)

    def learn(self, train: Dataset) -> Classification:
        """The kind of problem, the labels and their weights; for regression, mean and standard deviation."""
        check_weights(train, self.weight_column)
        values = list(train["label"])
        problem = self.problem if self.problem != "auto" else _told_by(values)
        pair = "text_pair" in train.column_names
        if problem == "regression":
            if self.class_weights or self.label_smoothing:
                raise ConfigError(
                    "class_weights and label_smoothing are for labels, and the label column holds numbers"
                )
            scale = float(np.std(values))
            if not scale > 0:
                raise DataError(f"every row is labelled {values[0]}: there is nothing to learn")
            return dataclasses.replace(self, problem=problem, pair=pair, offset=float(np.mean(values)), scale=scale)
        counts = Counter(name for value in values for name in (value if problem == "multi" else [value]))
        labels = tuple(sorted(counts))
        if len(labels) < (2 if problem == "single" else 1):
            what = f"every row is labelled {labels[0]!r}" if labels else "no row has a label"
            raise DataError(f"{what}: there is nothing to learn")
        if problem == "single" and len(labels) == len(values) > 2:
            raise DataError(
                f"each of the {len(values)} rows has another label ({labels[0]!r}, {labels[1]!r}, …): name the right "
                "column with --label-column, or if these are numbers to be predicted, use --problem regression"
            )
        weights = _weights(self.class_weights, labels, counts, len(values))
        return dataclasses.replace(self, problem=problem, pair=pair, labels=labels, weights=weights)

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """A text, or an object with ``text`` (and ``text_pair``), or with the names that the file's columns had."""
        if isinstance(item, Mapping):
            called = {"text": self.text_column, "text_pair": self.pair_column}
            item = {name: item.get(name, item.get(called[name])) for name in self.inputs}
        return super().accept(item)

    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        from transformers import ElectraForSequenceClassification

        names = dict(enumerate(self.labels)) if self.labels else {0: "value"}
        return make_model(
            ElectraForSequenceClassification,
            checkpoint,
            pretrained=pretrained,
            dropout=dropout,
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type=_PROBLEMS[self.problem],
        )

    def load(self, directory: str | Path) -> nn.Module:
        from transformers import ElectraForSequenceClassification

        return load_model(ElectraForSequenceClassification, directory)

    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        texts = [list(examples[name]) for name in self.inputs]
        encoded = tokenizer(
            *texts,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        rows = {
            "example": list(range(len(texts[0]))),
            "input_ids": encoded["input_ids"],
            "token_type_ids": encoded["token_type_ids"],
            "cut": [bool(encoding.overflowing) for encoding in encoded.encodings],
        }
        if training:
            rows["labels"] = [self._target(value) for value in examples["label"]]
            rows |= {name: list(examples[name]) for name in (WEIGHT,) if name in examples}
        return rows

    def _target(self, value: Any) -> Any:
        if self.problem == "regression":
            return (value - self.offset) / self.scale
        if self.problem == "multi":
            return [float(name in value) for name in self.labels]
        return self.labels.index(value)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The model's own, unless labels or rows have weights or targets are smoothed."""
        if not self.weights and not self.label_smoothing and WEIGHT not in batch:
            return model(**batch).loss
        from torch.nn import functional

        targets = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name not in ("labels", WEIGHT)}
        logits = model(**inputs).logits.float()
        weights = logits.new_tensor(self.weights) if self.weights else None
        count: int | Tensor = len(targets)
        if self.problem == "single":
            losses = functional.cross_entropy(
                logits, targets, weight=weights, label_smoothing=self.label_smoothing, reduction="none"
            )
            if weights is not None:
                count = weights[targets].sum()
        elif self.problem == "multi":
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            losses = functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=weights, reduction="none"
            ).mean(1)
        else:
            losses = (logits.squeeze(-1) - targets) ** 2
        return (losses * batch.get(WEIGHT, 1.0)).sum() / count

    def decode(self, outputs: Sequence[Any], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """``{"label", "probability", "probabilities"}``, ``{"labels", "probabilities"}`` or ``{"value"}``."""
        if self.problem == "regression":
            return [{"value": float(row[0]) * self.scale + self.offset} for row in outputs]
        logits = np.asarray(outputs, np.float64)
        if self.problem == "multi":
            chances = 1 / (1 + np.exp(-logits))
        else:
            chances = np.exp(logits - logits.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
        return [self._prediction(row) for row in chances.tolist()]

    def _prediction(self, chances: list[float]) -> dict[str, Any]:
        named = dict(zip(self.labels, chances, strict=True))
        if self.problem == "multi":
            return {"labels": [name for name, chance in named.items() if chance >= 0.5], "probabilities": named}
        best = max(named, key=named.__getitem__)
        return {"label": best, "probability": named[best], "probabilities": named}

    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """`label_figures` or `several_figures`; of numbers spearman, pearson, mean squared error."""
        truth = list(examples["label"])
        if self.problem == "regression":
            from sklearn import metrics

            values = [prediction["value"] for prediction in predictions]
            return {
                "spearman": _correlation(_ranks(truth), _ranks(values)),
                "pearson": _correlation(truth, values),
                "mse": float(metrics.mean_squared_error(truth, values)),
            }
        if self.problem == "multi":
            of = self.labels
            found = np.array([[name in prediction["labels"] for name in of] for prediction in predictions])
            right = np.array([[name in value for name in of] for value in truth])
            return several_figures(right, found)
        return label_figures(truth, [prediction["label"] for prediction in predictions])


def _strings(table: Dataset, column: str, path: str | Path) -> list[str | None]:
    values = list(table[column])
    for row, value in enumerate(values, 1):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{path}, row {row}: column {column!r} must hold text, got {value!r}")
    return values


def _told_by(values: list[Any]) -> str:
    """The kind of problem by the kind of the first label."""
    first = next((value for value in values if value is not None), None)
    return {list: "multi", float: "regression"}.get(type(first), "single")


def _name(value: Any, row: int, path: str | Path) -> str:
    if isinstance(value, (list, dict)):
        raise DataError(f"{path}, row {row}: expected one label, got {value!r} (several: --problem multi)")
    return str(value)


def _number(value: Any, row: int, path: str | Path) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise DataError(f"{path}, row {row}: the label must be a number, got {value!r}") from None
    return None if math.isnan(number) else number


def _weights(option: str | None, labels: Sequence[str], counts: Mapping[str, int], rows: int) -> tuple[float, ...]:
    """Weights of the labels: rows / (labels · count) when balanced, or as listed, 1 for those not listed."""
    if option is None:
        return ()
    if option == "balanced":
        return tuple(rows / (len(labels) * counts[name]) for name in labels)
    given = {}
    for part in option.split(","):
        name, _, weight = part.rpartition("=")
        check_known(name.strip(), labels, "class_weights")
        try:
            given[name.strip()] = float(weight)
        except ValueError:
            raise ConfigError(f"class_weights must be balanced or such as good=1,bad=2.5, got {option!r}") from None
    return tuple(given.get(name, 1.0) for name in labels)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, index, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[index]


def _correlation(a: Any, b: Any) -> float:
    """Pearson's; 0 where one of them does not vary."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
