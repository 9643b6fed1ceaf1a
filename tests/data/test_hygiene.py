"""Cleaning labelled text: what is changed, left out, filled, refused, and that all of it is counted."""

import pytest
from datasets import Dataset

from electra_fast.data.hygiene import HygienePolicy, clean
from electra_fast.errors import DataError


def cleaned(policy, **columns):
    return clean(Dataset.from_dict(columns), policy, texts=("text", "text_pair"), label="label")


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ({}, "plain", "plain"),
        ({}, "caf\u0065\u0301", "café"),
        ({}, "two\nlines\tand\r\nmore", "two lines and  more"),
        ({}, "a\u0000b\u200bc\ufeffd\u00ade\ud800f", "abcdef"),
        ({}, "می\u200cخواهم", "می\u200cخواهم"),
        ({}, "ﬁne ①", "ﬁne ①"),
        ({"normalize": "nfkc"}, "ﬁne ①", "fine 1"),
        ({"normalize": "none"}, "caf\u0065\u0301", "cafe\u0301"),
        ({"control_characters": "keep"}, "a\u200bb", "a\u200bb"),
    ],
)
def test_texts(policy, text, expected):
    assert HygienePolicy(**policy).text(text) == expected


def test_lists_of_texts():
    found, report = cleaned(HygienePolicy(), text=[["a\u200b", "b"], ["c", "d"]], label=["x", "y"])
    assert list(found["text"]) == [["a", "b"], ["c", "d"]]
    assert report.changed == 1


ROWS = {"text": ["a", None, "c", "  ", "e"], "label": ["x", "y", None, "x", "y"]}


def test_missing_dropped_and_counted():
    found, report = cleaned(HygienePolicy(), **ROWS)
    assert found[:] == {"text": ["a", "e"], "label": ["x", "y"]}
    assert (report.rows, report.kept, report.missing_texts, report.missing_labels) == (5, 2, 2, 1)
    assert report.examples["missing_texts"] == [2, 4]
    assert report.notes()[0] == "3 of 5 rows left out"


def test_missing_filled():
    found, report = cleaned(HygienePolicy(missing="fill", fill_text="nothing", fill_label="x"), **ROWS)
    assert list(found["text"]) == ["a", "nothing", "c", "nothing", "e"]
    assert list(found["label"]) == ["x", "y", "x", "x", "y"]
    assert (report.kept, report.missing_texts, report.missing_labels) == (5, 2, 1)


def test_without_a_fill_label_such_rows_go():
    found, _ = cleaned(HygienePolicy(missing="fill"), **ROWS)
    assert list(found["text"]) == ["a", "", "", "e"]


def test_missing_refused():
    with pytest.raises(DataError, match="row 2 has no text"):
        cleaned(HygienePolicy(missing="refuse"), **ROWS)
    with pytest.raises(DataError, match="row 1 has no label"):
        cleaned(HygienePolicy(missing="refuse"), text=["a"], label=[None])


def test_not_a_number_is_missing_and_an_empty_list_is_a_label():
    _, report = cleaned(HygienePolicy(), text=["a", "b"], label=[1.0, float("nan")])
    assert report.missing_labels == 1
    _, report = cleaned(HygienePolicy(), text=["a", "b"], label=[["x"], []])
    assert report.missing_labels == 0


def test_without_labels():
    found, report = cleaned(HygienePolicy(), text=["a", None])
    assert (list(found["text"]), report.missing_labels) == (["a"], 0)


REPEATED = {"text": ["a", "b", "a\u200b", "a"], "text_pair": ["p", "p", "p", "p"], "label": ["x", "x", "x", "y"]}


def test_duplicates_and_contradictions_are_told_apart():
    found, report = cleaned(HygienePolicy(), **REPEATED)
    assert (len(found), report.duplicates, report.contradictions) == (4, 1, 1)
    assert report.examples["duplicates"] == [3]
    found, report = cleaned(HygienePolicy(duplicates="drop"), **REPEATED)
    assert (len(found), report.duplicates) == (3, 1)
    with pytest.raises(DataError, match="row 3 is equal to an earlier one"):
        cleaned(HygienePolicy(duplicates="refuse"), **REPEATED)


def test_other_columns_stay():
    found, _ = cleaned(HygienePolicy(), text=["a\n", None, "c"], label=["x", "y", "z"], id=[1, 2, 3])
    assert found[0] == {"text": "a ", "label": "x", "id": 1}
    assert list(found["id"]) == [1, 3]
