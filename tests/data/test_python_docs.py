"""The text that every CPython carries."""

import errno
import os

import pytest

from electra_fast.data import python_docs
from electra_fast.errors import DiskFullError


def test_paragraphs_are_prose():
    text = """Return the sum of all the items.

    >>> sum([1, 2, 3]) of the list here
    6

    =====  =====
    a      b
    =====  =====

    Too short here.

    A second ``paragraph`` that goes
    on over two lines."""
    assert python_docs.paragraphs(text) == [
        "Return the sum of all the items.",
        "A second paragraph that goes on over two lines.",
    ]


def test_broken_source_has_no_docstrings():
    assert list(python_docs._docstrings("def f(:")) == []
    assert list(python_docs._docstrings('"""One."""\nclass A:\n    """Two."""')) == ["One.", "Two."]


def test_the_text_is_there_and_stays_the_same(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    assert python_docs.write(first) == python_docs.write(second) > 1_000_000
    text = first.read_text(encoding="utf-8")
    assert text == second.read_text(encoding="utf-8")
    documents = [document.splitlines() for document in text.split("\n\n")]
    assert len(documents) > 400
    lines = [line for document in documents for line in document]
    assert len(lines) == len(set(lines))
    assert any("the exception" in line for line in lines)


def test_a_full_disk_leaves_no_half_of_the_text(tmp_path, monkeypatch):
    """The demo trains on whatever text is there, so that half of it must never be."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(python_docs, "documents", lambda: iter([["a paragraph"], ["another"]]))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"cannot write .*corpus\.txt: no space left"):
        python_docs.write(tmp_path / "corpus.txt")
    assert os.listdir(tmp_path) == []
