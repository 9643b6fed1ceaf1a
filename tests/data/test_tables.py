"""Labelled data in tables: every format gives the same rows, and every mistake a line that names file and place."""

import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from electra_fast.data.tables import find_column, read_table
from electra_fast.errors import DataError

ROWS = [{"text": 'He said "no", twice', "label": "a"}, {"text": "läuft\u2028weiter", "label": None}]


def written(path):
    """``path`` with ROWS in the format of its name."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif path.suffix == "":
        Dataset.from_list(ROWS).save_to_disk(path)
    else:
        content = {
            ".tsv": 'text\tlabel\nHe said "no", twice\ta\nläuft\u2028weiter\t\n',
            ".csv": 'text,label\n"He said ""no"", twice",a\nläuft\u2028weiter,\n',
            ".jsonl": "".join(json.dumps(row) + "\n\n" for row in ROWS),
            ".json": json.dumps(ROWS),
        }
        packed = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
        with (packed or open)(path, "wb") as stream:
            stream.write(b"\xef\xbb\xbf" + content[path.suffixes[0]].encode())
    return path


@pytest.mark.parametrize(
    "name", ["t.tsv", "t.csv", "t.jsonl", "t.json", "t.tsv.gz", "t.jsonl.xz", "t.parquet", "saved"]
)
def test_every_format_gives_the_same(name, tmp_path):
    assert read_table(written(tmp_path / name)).to_list() == ROWS


def test_a_directory_of_parquet_files(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "ab":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data" / f"{name}.parquet")
    assert read_table(tmp_path / "data").to_list() == ROWS * 2


def test_fields_of_a_csv_may_hold_lines_and_be_long(tmp_path):
    long = "word " * 40_000
    (tmp_path / "t.csv").write_text(f'text,label\n"two\nlines {long}",a\n')
    assert read_table(tmp_path / "t.csv")[0]["text"] == f"two\nlines {long}"


def test_rows_of_jsonl_may_lack_columns(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"b": "x"}\n')
    assert read_table(tmp_path / "t.jsonl").to_list() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_class_labels_become_names(tmp_path):
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"text": ["x", "y", "z"], "label": [1, 0, -1]}, features=kinds).save_to_disk(tmp_path / "t")
    assert list(read_table(tmp_path / "t")["label"]) == ["good", "bad", None]


BAD = {
    "t.tsv": ("a\tb\n1\t2\n3\n", "t.tsv, line 3: 1 fields parted by tabs, expected 2 (a, b)"),
    "twice.tsv": ("a\ta\n1\t2\n", "twice.tsv, line 1: two columns are called 'a'"),
    "empty.tsv": ("", "empty.tsv is empty: its first line has to name the columns"),
    "header.tsv": ("a\tb\n", "header.tsv holds no rows"),
    "t.csv": ('a,b\n1,2\n"3,4\n', "t.csv, line 3: unexpected end of data"),
    "t.jsonl": ('{"a": 1}\n\n{"a": \n', "t.jsonl, line 3: no JSON: "),
    "list.jsonl": ("[1]\n", "list.jsonl, line 1: expected an object {…}, got [1]"),
    "t.json": ('{"a": 1}', "t.json must be a list of objects"),
    "mixed.jsonl": ('{"a": "x"}\n{"a": 1}\n', "column 'a' holds a text in row 1 and a number in row 2"),
    "t.parquet": ("none", "t.parquet is damaged, or not a parquet file"),
    "t.gz": ("none", "t.gz is of no known format"),
    "t.tsv.gz": ("none", "t.tsv.gz is damaged, or not a .gz file"),
    "latin.tsv": (b"a\tb\nn\xe4he\t1\n", "latin.tsv is not UTF-8 (byte 0xe4)"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_directories_that_are_none(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "absent.tsv")
    with pytest.raises(DataError, match="no directory that datasets saved"):
        read_table(tmp_path)
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match="holds the splits train: name one"):
        read_table(tmp_path / "splits")


def test_columns_are_found_or_missed():
    table = Dataset.from_dict({"sentence": ["x"], "label": ["y"]})
    assert find_column(table, "t.tsv", ["text", "sentence"], "text_column") == "sentence"
    with pytest.raises(DataError, match=r"t\.tsv has no column 'sentense': did you mean 'sentence'"):
        find_column(table, "t.tsv", [], "text_column", "sentense")
    with pytest.raises(
        DataError, match=r"no column 'text' \(it has sentence, label\): name the column with --text-col"
    ):
        find_column(table, "t.tsv", ["text"], "text_column")
