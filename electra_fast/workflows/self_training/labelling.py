"""A round's labels: what the model of the round before says of the unlabelled text, and which of it is taken."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.files import write_text
from electra_fast.workflows.evaluation.predictor import Predictor, load_task
from electra_fast.workflows.finetuning.row_weights import WEIGHT

from .corpus import TRUTH, Data, read_rows, write_rows
from .layout import LABELLED, PSEUDO, RUN, round_folder
from .pseudo_labels import Judgement, accept, judge_tags, judge_text, kind_of

if TYPE_CHECKING:
    from datasets import Dataset

    from electra_fast.workflows.finetuning.options import FinetuneOptions

    from .options import SelfTrainOptions

_WINDOW = 1024
_CONFIDENCE = "confidence"  # the column
_TRAIN = "train.jsonl"
_COUNTS = "taken.json"  # written last: the others are complete


def label_round(
    output: Path,
    number: int,
    data: Data,
    options: FinetuneOptions,
    training: SelfTrainOptions,
    say: Callable[[str], None],
) -> tuple[Path, dict[str, Any]] | None:
    """Label, write pseudo.jsonl (what is taken, each with its confidence) and train.jsonl (that and what is labelled).

    Returns:
        The file to train on, and counts for the round's record; None if nothing, or nothing new, is taken.
    """
    folder = round_folder(output, number)
    done = folder / _COUNTS
    if done.exists():
        return folder / _TRAIN, json.loads(done.read_text(encoding="utf-8"))
    teacher = load_task(round_folder(output, number - 1) / RUN, precision="fp32", device=options.device)
    judgements = judge(teacher, data.unlabelled)
    label = data.task.label
    shares = None
    if training.balanced:
        counts = Counter(map(kind_of, data.train[label]))
        shares = {kind: count / len(data.train) for kind, count in counts.items()}
    kept = accept(judgements, training.confidence, cap=training.cap, shares=shares)
    if not kept:
        say(f"round {number}: no text is labelled with a confidence of {training.confidence:g}: stopping")
        return None
    texts = [name for name in data.unlabelled.column_names if name != TRUTH]
    taken = data.unlabelled.select(kept).select_columns(texts).to_list()
    rows = [{**text, label: judgements[index].label} for text, index in zip(taken, kept, strict=True)]
    if number > 1 and rows == [_bare(row) for row in read_rows(round_folder(output, number - 1) / PSEUDO)]:
        say(f"round {number}: the same labels as before: stopping")
        return None
    counts = {"labelled": len(data.train), "taken": len(kept), **_counts(judgements, kept, data.unlabelled)}
    say(f"round {number}: {_told(counts, len(data.unlabelled))}")
    confidences = [judgements[index].confidence for index in kept]
    write_rows(folder / PSEUDO, ({**row, _CONFIDENCE: c} for row, c in zip(rows, confidences, strict=True)))
    weighted = [{**row, WEIGHT: training.pseudo_weight} for row in rows]
    write_rows(folder / _TRAIN, [*read_rows(output / LABELLED), *weighted])
    write_text(done, json.dumps(counts, ensure_ascii=False) + "\n")
    return folder / _TRAIN, counts


def judge(teacher: Predictor, examples: Dataset) -> list[Judgement]:
    """What a model says of every example, in their order."""
    found: list[Judgement] = []
    for start in range(0, len(examples), _WINDOW):
        part = examples[start : start + _WINDOW]
        part.pop(TRUTH, None)
        encoded = teacher.encode_columns(part)
        outputs = teacher.infer(encoded.rows, encoded.lengths)
        predictions = teacher.decode(outputs, encoded)
        if teacher.task.name == "classification":
            found += map(judge_text, predictions)
            continue
        logits: list[list[Any]] = [[] for _ in predictions]
        for example, output, positions in zip(encoded.rows["example"], outputs, encoded.rows["positions"], strict=True):
            logits[example].append(output[positions])
        found += map(judge_tags, predictions, logits)
    return found


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != _CONFIDENCE}


def _counts(judgements: Sequence[Judgement], kept: Sequence[int], examples: Dataset) -> dict[str, Any]:
    """How many are taken of every kind; if the truth is there, the share of them that is right."""
    kinds = Counter(judgements[index].kind for index in kept)
    counts: dict[str, Any] = {"taken_by_label": dict(sorted(kinds.items()))}
    if TRUTH in examples.column_names:
        truth = examples[TRUTH]
        told = [judgements[index].label == truth[index] for index in kept if truth[index] not in (None, [])]
        counts["right"] = sum(told) / len(told) if told else None
    return counts


def _told(counts: dict[str, Any], texts: int) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts["taken_by_label"].items())
    right = "" if counts.get("right") is None else f"; {counts['right']:.1%} of them are right"
    return f"{counts['taken']:,} of {texts:,} texts are taken ({kinds}){right}"
