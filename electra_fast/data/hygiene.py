"""Cleaning labelled text: Unicode, control characters, what is missing, what is there twice. Everything is counted.

The same policy is applied to training data and, kept in the fine-tuned model's ``task.json``, to what is predicted.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from electra_fast.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

# Line ends and tabs part words; they become one space. (Of "\r\n", the tokenizer sees two spaces as one.)
_SPACES = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]")
_ZERO_WIDTH_KEPT = "\u200c\u200d"  # joiners: they change letters in Arabic and Indic scripts, and hold emoji together


@dataclass(frozen=True)
class HygienePolicy:
    """What is done to texts, and to rows that lack something.

    Attributes:
        normalize: Unicode normal form: "nfc" (equal characters get equal bytes), "nfkc" (also ligatures, full-width and
            superscript forms become plain letters), "none".
        control_characters: "remove": characters of no width and no meaning in text (Unicode categories Cc, Cf, Cs, Co
            and Cn but for the zero-width joiners) go, line ends and tabs become spaces. "keep".
        missing: rows whose text or label is missing: "drop", "fill" (with ``fill_text`` and ``fill_label``), "refuse".
        duplicates: rows equal in all texts and the label to an earlier one: "keep" (they are counted), "drop",
            "refuse". Rows of equal text and another label are counted as contradictions, and kept.
    """

    normalize: str = "nfc"
    control_characters: str = "remove"
    missing: str = "drop"
    fill_text: str = ""
    fill_label: Any = None
    duplicates: str = "keep"

    @property
    def changes_text(self) -> bool:
        return self.normalize != "none" or self.control_characters == "remove"

    def text(self, text: str) -> str:
        """A text after ``normalize`` and ``control_characters``."""
        if text.isascii() and text.isprintable():  # nearly all of them: nothing to do
            return text
        if self.control_characters == "remove":
            text = _SPACES.sub(" ", text)
            text = "".join(c for c in text if c in _ZERO_WIDTH_KEPT or unicodedata.category(c)[0] != "C")
        return text if self.normalize == "none" else unicodedata.normalize(self.normalize.upper(), text)

    def value(self, value: Any) -> Any:
        """`text` of a string, of each string of a list; anything else as it is."""
        if isinstance(value, str):
            return self.text(value)
        return [self.value(entry) for entry in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class HygieneReport:
    """Counts of rows.

    Attributes:
        rows: there were; kept: there are.
        changed: texts that normalisation or the removal of control characters changed.
        missing_texts, missing_labels: rows that lack one (before they were left out or filled).
        duplicates: equal in text and label to an earlier row.
        contradictions: equal in text to an earlier row, and labelled otherwise.
        overlong: rows that are longer than max_length and were cut; filled in by whoever tokenises.
    """

    rows: int = 0
    kept: int = 0
    changed: int = 0
    missing_texts: int = 0
    missing_labels: int = 0
    duplicates: int = 0
    contradictions: int = 0
    overlong: int = 0
    examples: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the first few rows (from 1, the file's header not counted) of each kind."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def notes(self) -> list[str]:
        """What is worth telling, a sentence each; nothing if all is well."""
        told = (
            (self.rows - self.kept, "rows left out"),
            (self.missing_texts, "rows without text"),
            (self.missing_labels, "rows without label"),
            (self.changed, "rows with control characters or another Unicode form, normalised"),
            (self.duplicates, "rows that were there before"),
            (self.contradictions, "rows whose text was there before with another label"),
            (self.overlong, "rows longer than max_length, cut"),
        )
        return [f"{count:,} of {self.rows:,} {what}" for count, what in told if count]


def clean(
    examples: Dataset,
    policy: HygienePolicy,
    *,
    texts: Sequence[str],
    label: str,
    value: Callable[[Any], Any] = lambda x: x,
) -> tuple[Dataset, HygieneReport]:
    """Apply a policy to the rows of a data set.

    Args:
        examples: any number of columns; those not named stay as they are.
        texts: columns of strings, or of lists of strings.
        label: column of labels of any kind (an empty list is a label: none applies); one that the data set lacks is
            not missed.
        value: what a filled-in label is turned into, so that it is of the column's kind.

    Raises:
        DataError: the policy refuses what is there; names the first rows.
    """
    counter = _Counter(policy)
    texts = [name for name in texts if name in examples.column_names]
    label = label if label in examples.column_names else ""
    columns = {name: list(examples[name]) for name in [*texts, *([label] if label else [])]}
    kept: list[int] = []
    for row in range(len(examples)):
        values = {name: column[row] for name, column in columns.items()}
        lacking = [name for name in texts if is_missing(values[name])]
        unlabelled = bool(label) and is_missing(values[label]) and not isinstance(values[label], list)
        if lacking or unlabelled:
            counter.missing(row, lacking, unlabelled)
            if policy.missing == "drop" or (unlabelled and policy.fill_label is None):
                continue
            for name in lacking:
                columns[name][row] = policy.fill_text
            if unlabelled:
                columns[label][row] = value(policy.fill_label)
        changed = False
        for name in texts if policy.changes_text else ():
            before = columns[name][row]
            columns[name][row] = policy.value(before)
            changed |= columns[name][row] != before
        if changed:
            counter.count("changed", row)
        key = tuple(_hashable(columns[name][row]) for name in texts)
        if (
            counter.repeated(row, key, _hashable(columns[label][row]) if label else None)
            and policy.duplicates == "drop"
        ):
            continue
        kept.append(row)
    report = counter.report(len(examples), len(kept))
    if not any(columns[name] != list(examples[name]) for name in columns):
        return (examples if len(kept) == len(examples) else examples.select(kept)), report
    everything = {name: columns.get(name) or list(examples[name]) for name in examples.column_names}
    return type(examples).from_dict(everything, features=examples.features).select(kept), report


def is_missing(value: Any) -> bool:
    """Whether there is nothing: None, NaN, a blank string, an empty list."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list):
        return not value
    return value is None or value != value


class _Counter:
    """Counts rows of every kind, with the numbers of the first, and refuses where the policy says so."""

    _SHOWN = 5

    def __init__(self, policy: HygienePolicy) -> None:
        self._policy = policy
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[int]] = {}
        self._labels: dict[Any, set[Any]] = {}

    def count(self, kind: str, row: int) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        first = self._first.setdefault(kind, [])
        if len(first) < self._SHOWN:
            first.append(row + 1)

    def missing(self, row: int, lacking: Sequence[str], unlabelled: bool) -> None:
        if self._policy.missing == "refuse":
            what = f"text (column {lacking[0]})" if lacking else "label"
            raise DataError(f"row {row + 1} has no {what}: mend it, or use missing drop or fill")
        if lacking:
            self.count("missing_texts", row)
        if unlabelled:
            self.count("missing_labels", row)

    def repeated(self, row: int, key: Any, label: Any) -> bool:
        """Whether the row is a duplicate."""
        labels = self._labels.setdefault(key, set())
        if label in labels:
            if self._policy.duplicates == "refuse":
                raise DataError(f"row {row + 1} is equal to an earlier one: remove it, or use duplicates keep or drop")
            self.count("duplicates", row)
            return True
        if labels:
            self.count("contradictions", row)
        labels.add(label)
        return False

    def report(self, rows: int, kept: int) -> HygieneReport:
        return HygieneReport(rows=rows, kept=kept, **self._counts, examples=self._first)


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((name, _hashable(entry)) for name, entry in value.items())
    return value
