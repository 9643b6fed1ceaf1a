"""Questions about texts from files: SQuAD's json, and tables with its fields as columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_fast.data.squad import check_answer, read_squad, to_dataset
from electra_fast.data.tables import find_column, read_table
from electra_fast.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def read_questions(
    path: str | Path, *, labelled: bool, context_column: str | None = None, question_column: str | None = None
) -> Dataset:
    """Columns ``id``, ``question``, ``context``, ``answers``.

    Args:
        path: SQuAD's form where the name ends in .json (or .json.gz, …); otherwise a table with ``question``,
            ``context``, ``answers`` {``text``, ``answer_start``: lists}, and ``id`` if it has one.
        labelled: False: ``answers`` may be missing.

    Raises:
        DataError: the file is missing, empty or of another form, or an answer is not at its place; names the record.
    """
    if ".json" in Path(path).suffixes and not Path(path).is_dir():
        return read_squad(path, labelled=labelled)
    table = read_table(path)
    context = find_column(table, path, ("context",), "text_column", context_column)
    question = find_column(table, path, ("question",), "pair_column", question_column)
    if labelled and "answers" not in table.column_names:
        raise DataError(f"{path} has no column 'answers' (it has {', '.join(table.column_names)})")
    rows = []
    for number, row in enumerate(table, 1):
        where = f"{path}, row {number}"
        for name in (context, question):
            if not isinstance(row[name], str) or not row[name].strip():
                raise DataError(f"{where}: column {name!r} must hold a text, got {row[name]!r}")
        answers = _answers(row.get("answers"), row[context], where, labelled)
        name = str(row["id"]) if row.get("id") is not None else str(number)
        rows.append({"id": name, "question": row[question], "context": row[context], "answers": answers})
    return to_dataset(rows)


def _answers(given: Any, context: str, where: str, labelled: bool) -> dict[str, list[Any]]:
    if given is None and not labelled:
        return {"text": [], "answer_start": []}
    texts, starts = (given.get(name) if isinstance(given, dict) else None for name in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise DataError(
            f"{where}: answers must be an object with the lists text and answer_start, of one length, got {given!r:.60}"
        )
    for text, start in zip(texts, starts, strict=True):
        check_answer(where, context, text, start)
    return {"text": texts, "answer_start": starts}
