"""Files of SQuAD's two versions: questions about paragraphs, answered by a piece of the paragraph or (2.0) by nothing.

``{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}],
"is_impossible"}]}]}]}``; ``answer_start`` counts characters (code points) of the context. In version 2.0 a question
may be ``is_impossible``; its ``plausible_answers`` are not answers.
Source: Rajpurkar et al. 2016 and 2018.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.tables import check_characters, open_text
from electra_fast.errors import DataError
from electra_fast.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("id", "question", "context", "answers")


def read_squad(path: str | Path, *, labelled: bool = True) -> Dataset:
    """The questions of a file: ``id``, ``question``, ``context``, ``answers`` {``text``, ``answer_start``: lists}.

    Args:
        labelled: False: questions without the field ``answers`` are read, too, as if they had none.

    Raises:
        DataError: the file is missing, not JSON, or of another form, or an answer is not where ``answer_start`` says;
            names file and record.
    """
    questions = list(_questions(_load(path), str(path), labelled))
    if not questions:
        raise DataError(f"{path} holds no question")
    return to_dataset(questions)


def to_dataset(questions: Sequence[Mapping[str, Any]]) -> Dataset:
    """A data set of the four `COLUMNS`."""
    datasets = require("datasets", "finetune", "reading questions")
    text, number = datasets.Value("string"), datasets.Value("int64")
    answers = {"text": datasets.Sequence(text), "answer_start": datasets.Sequence(number)}
    features = datasets.Features({"id": text, "question": text, "context": text, "answers": answers})
    columns = {name: [question[name] for question in questions] for name in COLUMNS}
    return datasets.Dataset.from_dict(columns, features=features)


def check_answer(where: str, context: str, text: Any, start: Any) -> None:
    """DataError, beginning with ``where``, unless ``text`` is at ``start`` of the context."""
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: an answer must have a text, got {text!r}")
    if not isinstance(start, int) or isinstance(start, bool):
        raise DataError(f"{where}: answer_start must be a whole number, got {start!r}")
    if start < 0 or context[start : start + len(text)] != text:
        found = context.find(text)
        place = f"it begins at {found}" if found >= 0 else "it is not in the context"
        raise DataError(f"{where}: the answer {_shown(text)} is not at character {start} of the context: {place}")


def _load(path: str | Path) -> Any:
    try:
        with open_text(path) as stream:
            return json.load(stream)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{path}: brackets nested too deeply") from None


def _questions(content: Any, path: str, labelled: bool) -> Iterator[dict[str, Any]]:
    if not isinstance(content, dict) or "data" not in content:
        raise DataError(f"{path}: expected SQuAD's form, an object with 'data'; questions a line each go into .jsonl")
    for a, article in enumerate(_entries(content, "data", path)):
        at_article = f"{path}, data[{a}]"
        for p, paragraph in enumerate(_entries(article, "paragraphs", at_article)):
            at_paragraph = f"{at_article}.paragraphs[{p}]"
            context = _text(paragraph, "context", at_paragraph)
            for q, question in enumerate(_entries(paragraph, "qas", at_paragraph)):
                yield _question(question, context, f"{at_paragraph}.qas[{q}]", labelled)


def _question(question: Any, context: str, where: str, labelled: bool) -> dict[str, Any]:
    text = _text(question, "question", where)
    name = question.get("id")
    if name is not None:
        check_characters(name, where)
        where = f"{where} (id {name})"
    given = _entries(question, "answers", where) if labelled or "answers" in question else []
    if question.get("is_impossible"):
        if given:
            raise DataError(f"{where}: is_impossible, and yet there are answers: remove one of them")
    elif labelled and not given:
        raise DataError(f'{where}: no answers; a question that has none is marked by "is_impossible": true')
    texts, starts = [], []
    for answer in given:
        if not isinstance(answer, dict):
            raise DataError(f"{where}: an answer must be an object with text and answer_start, got {_shown(answer)}")
        check_answer(where, context, answer.get("text"), answer.get("answer_start"))
        texts.append(answer["text"])
        starts.append(answer["answer_start"])
    answers = {"text": texts, "answer_start": starts}
    return {"id": where if name is None else str(name), "question": text, "context": context, "answers": answers}


def _entries(record: Any, field: str, where: str) -> list[Any]:
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, list):
        raise DataError(f"{where}: expected an object with a list {field!r}, got {_shown(record)}")
    return value


def _text(record: Any, field: str, where: str) -> str:
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: expected an object with a text {field!r}, got {_shown(record)}")
    check_characters(value, where)
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
