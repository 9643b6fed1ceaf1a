"""From files to documents: boundaries, parts, encodings, positions, and errors that name the place."""

import gzip
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from electra_fast.data.corpus import _BLANK_LINE, DocumentReader, Position, ReadOptions, cut_documents
from electra_fast.data.sources import find_sources
from electra_fast.errors import ConfigError, CorpusError


def read(*paths, start=None, **options):
    reader = DocumentReader(find_sources(paths).files, ReadOptions(**options))
    return list(reader.parts(start))


def documents(*paths, **options):
    """The lines of every document, whatever parts it came in."""
    found = {}
    for part, _ in read(*paths, **options):
        found.setdefault(part.document, []).extend(line for line in part.text.split("\n") if line.strip())
    return [found[index] for index in range(len(found))]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_blank_line_or_the_end_of_a_file_ends_a_document(tmp_path):
    first = write(tmp_path / "a.txt", "\n\none\ntwo\n \t\nthree\n\n\n\nfour")
    second = write(tmp_path / "b.txt", "five\n")
    assert documents(first, second) == [["one", "two"], ["three"], ["four"], ["five"]]


def test_a_file_can_be_a_document(tmp_path):
    first = write(tmp_path / "a.txt", "one\n\ntwo\n")
    second = write(tmp_path / "b.txt", "\n \n")
    third = write(tmp_path / "c.txt", "three")
    assert documents(first, second, third, documents="file") == [["one", "two"], ["three"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path, end):
    path = write(tmp_path / "a.txt", end.join(["one", "two", "", "three", ""]))
    assert documents(path) == [["one", "two"], ["three"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-32"])
def test_encodings(tmp_path, encoding):
    path = write(tmp_path / "a.txt", "né à Zürich\n\nsøn", encoding)
    given = "utf-8" if encoding == "utf-8-sig" else encoding  # a byte-order mark is no text
    assert documents(path, encoding=given) == [["né à Zürich"], ["søn"]]


@pytest.mark.parametrize(("name", "value"), [("documents", "page"), ("errors", "ignore"), ("encoding", "utf-9")])
def test_unknown_options(name, value):
    with pytest.raises(ConfigError, match=f"{name}: expected .*{value}"):
        ReadOptions(**{name: value})


def test_a_codec_that_is_no_text_encoding():
    with pytest.raises(ConfigError, match="text encoding"):
        ReadOptions(encoding="hex")


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 1, 1 << 20, (1 << 20) + 7])
def test_an_undecodable_byte_is_named_by_its_offset(tmp_path, before):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * before + b"\xe9 rest\n")
    with pytest.raises(CorpusError, match=f"a.txt: byte 0xe9 at offset {before} is not utf-8") as error:
        read(path)
    assert "--errors replace" in str(error.value)
    text = "".join(part.text for part, _ in read(path, errors="replace", part_characters=1 << 21))
    assert text == "a" * before + "\ufffd rest"


def test_a_character_cut_off_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc" + "é".encode()[:1])
    with pytest.raises(CorpusError, match="offset 3"):
        read(path)


def test_the_offset_in_a_compressed_file_is_that_of_the_text(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"abc\xff"))
    with pytest.raises(CorpusError, match="offset 3 of the unpacked text"):
        read(path)


def test_jsonl(tmp_path):
    rows = [{"text": "one\n\ntwo"}, {"text": " "}, {"text": "drei ü", "id": 3}]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode() + b"\n\n"))
    assert documents(path) == [["one", "two"], ["drei ü"]]


def test_jsonl_with_a_byte_order_mark(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two"}\n', "utf-8-sig")
    assert documents(path) == [["one"], ["two"]]


def test_a_null_is_an_empty_document(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": null}\n{"text": "two"}\n')
    assert documents(path) == [["one"], ["two"]]


def test_the_field_of_jsonl(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "x"}\n')
    assert documents(path, text_field="body") == [["x"]]
    with pytest.raises(CorpusError, match=r"line 1: no text in field 'text' \(the row has: body\).*--text-field"):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "line 2: not JSON"),
        (b"[1]", "line 2: no text in field 'text' .the row has: a list"),
        (b'{"text": 3}', "line 2: no text"),
        (b'{"text": null, "text": 0}', "line 2: no text"),
        (b'{"body": null}', "line 2: no text"),
        (b'{"text": ' + b"[" * 200_000, "line 2: brackets nested too deeply"),
        (b'{"text": "\xff"}', "byte 0xff at offset 25 is not utf-8"),
        (b'{"text": "\\ud800"}', "line 2: .*lone surrogate"),
    ],
)
def test_broken_rows(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "xy"}\n' + line + b"\n")
    with pytest.raises(CorpusError, match=message):
        read(path)


def test_broken_characters_of_jsonl_can_be_replaced(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a\xff"}\n{"text": "b\\ud800 \\ud83d\\ude00"}\n')
    assert documents(path, errors="replace") == [["a\ufffd"], ["b\ufffd 😀"]]


def test_a_row_longer_than_a_block(tmp_path):
    text = "word " * 500_000
    path = write(tmp_path / "a.jsonl", json.dumps({"text": text}) + "\n" + json.dumps({"text": "next"}))
    parts = read(path)
    assert parts[-1][0].text == "next"
    assert parts[-1][0].document == 1
    assert " ".join(part.text for part, _ in parts[:-1]) == text.strip()


def test_a_row_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("electra_fast.data.corpus._LONGEST_ROW", 100)
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' + "y" * 101)
    with pytest.raises(CorpusError, match="the row at offset 14 is longer than 1 GiB"):
        read(path)


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow", reason="needs the optional package pyarrow")


def parquet(path, arrow, **columns):
    from pyarrow import parquet as module

    module.write_table(arrow.table(columns), path)
    return path


def test_parquet(tmp_path, arrow):
    texts = arrow.array(["one\n\ntwo", None, "", "three"])
    path = parquet(tmp_path / "a.parquet", arrow, text=texts, id=arrow.array([1, 2, 3, 4]))
    assert documents(path) == [["one", "two"], ["three"]]


@pytest.mark.parametrize("kind", ["large_string", "dictionary"])
def test_kinds_of_strings_in_parquet(tmp_path, arrow, kind):
    texts = arrow.array(["x", "y", "x"])
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(arrow.large_string())
    assert documents(parquet(tmp_path / "a.parquet", arrow, text=texts)) == [["x"], ["y"], ["x"]]


def test_wrong_columns_of_parquet(tmp_path, arrow):
    path = parquet(tmp_path / "a.parquet", arrow, text=arrow.array([1]), body=arrow.array(["x"]))
    with pytest.raises(CorpusError, match="column 'text' holds int64, expected strings"):
        read(path)
    with pytest.raises(CorpusError, match=r"has no column 'content' \(it has: text, body\).*--text-field"):
        read(path, text_field="content")
    assert documents(path, text_field="body") == [["x"]]


def test_bytes_in_parquet_that_do_not_decode(tmp_path, arrow):
    broken = arrow.array([b"ok", b"a\xff"]).view(arrow.string())
    path = parquet(tmp_path / "a.parquet", arrow, text=broken)
    with pytest.raises(CorpusError, match="row 2: byte 0xff at offset 1"):
        read(path)
    assert documents(path, errors="replace") == [["ok"], ["a\ufffd"]]


def test_damaged_parquet(tmp_path, arrow):
    path = write(tmp_path / "a.parquet", "no parquet")
    with pytest.raises(CorpusError, match="is damaged, or not a parquet file"):
        read(path)


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow(tmp_path, arrow, form):
    """The stream format is what Hugging Face datasets writes; rows in several batches, more than are taken at once."""
    table = arrow.table({"text": [f"row {i}" if i % 7 else None for i in range(900)], "id": list(range(900))})
    new = arrow.ipc.new_stream if form == "stream" else arrow.ipc.new_file
    with new(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=400)
    assert documents(tmp_path / "a.arrow") == [[f"row {i}"] for i in range(900) if i % 7]
    with pytest.raises(CorpusError, match=r"has no column 'body' \(it has: text, id\)"):
        read(tmp_path / "a.arrow", text_field="body")
    with pytest.raises(CorpusError, match="column 'id' holds int64, expected strings"):
        read(tmp_path / "a.arrow", text_field="id")
    (tmp_path / "a.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-3000])
    with pytest.raises(CorpusError, match="is damaged, or not an Arrow file"):
        read(tmp_path / "a.arrow")


def test_a_directory_of_hugging_face_datasets(tmp_path, arrow):
    datasets = pytest.importorskip("datasets", reason="needs the optional package datasets")
    table = arrow.table({"text": ["one", "two\nlines", "three"]})
    # Given a fingerprint, it need not pickle the table, which its pickler cannot do with every version of pyarrow.
    datasets.Dataset(table, fingerprint="a").save_to_disk(tmp_path / "saved", num_shards=2)
    found = find_sources([tmp_path / "saved"])
    parts = [part for part, _ in DocumentReader(found.files, ReadOptions()).parts()]
    assert [part.text for part in parts] == ["one", "two\nlines", "three"]
    assert {path.suffix for path in found.skipped} == {".json"}


def test_long_documents_come_in_parts_cut_at_line_ends(tmp_path):
    lines = [f"line {number}" for number in range(100)]
    path = write(tmp_path / "a.txt", "\n".join(lines) + "\n\nnext\n")
    parts = [part for part, _ in read(path, part_characters=50)]
    assert all(len(part.text) <= 50 and not part.continues_line for part in parts)
    assert [part.part for part in parts] == [*range(len(parts) - 1), 0]
    assert [part.document for part in parts] == [0] * (len(parts) - 1) + [1]
    assert "\n".join(part.text for part in parts[:-1]).split("\n") == lines


def test_a_line_longer_than_a_part_is_cut_at_spaces(tmp_path):
    path = write(tmp_path / "a.txt", "first\n" + "abcd " * 30 + "\nlast")
    parts = [part for part, _ in read(path, part_characters=22)]
    assert [part.text for part in parts[:3]] == ["first", "abcd abcd abcd abcd", "abcd abcd abcd abcd"]
    assert [part.continues_line for part in parts[:3]] == [False, False, True]
    assert parts[-1].text.endswith("last")


def test_a_line_without_any_space_is_cut_anyway(tmp_path):
    path = write(tmp_path / "a.txt", "x" * 95)
    assert [len(part.text) for part, _ in read(path, part_characters=40)] == [40, 40, 15]


def test_megabytes_of_spaces_do_not_pile_up():
    blocks = ["start", *[" " * 1000] * 100, "end"]
    (piece,) = cut_documents(blocks, _BLANK_LINE, 50)
    assert piece.text.split() == ["start", "end"]
    assert len(piece.text) < 1200


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab \n\t", max_size=120),
    st.integers(1, 12),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
@example(" a \n a", 1, [1])
def test_pieces_do_not_depend_on_blocks(text, limit, sizes):
    """Nothing is lost, nothing is too long, and how the text arrives makes no difference."""
    blocks, at = [], 0
    while at < len(text):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(text[at : at + size])
        at += size
    whole = list(cut_documents([text], _BLANK_LINE, limit))
    # The shortcut for megabytes of spaces may act earlier in small blocks; it is tested above.
    if max(map(len, text.split("\n")), default=0) <= 4 * limit and "  " not in text.strip():
        assert list(cut_documents(blocks, _BLANK_LINE, limit)) == whole
    assert all(0 < len(piece.text) <= limit for piece in whole)
    assert "".join("".join(piece.text for piece in whole).split()) == "".join(text.split())
    begun = sum(piece.begins_document for piece in whole)
    expected = [document for document in _BLANK_LINE.sub("\0", text).split("\0") if document.strip()]
    assert begun == len(expected)


def test_reading_goes_on_from_any_position(tmp_path):
    files = [
        write(tmp_path / "a.txt", "one\n\n" + "two " * 20 + "\n\nthree"),
        write(tmp_path / "b.txt", ""),
        write(tmp_path / "c.jsonl", "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(4))),
    ]
    whole = read(*files, part_characters=30)
    assert len(whole) > 8
    for index, (_, position) in enumerate(whole):
        assert read(*files, start=position, part_characters=30) == whole[index + 1 :]
    assert read(*files, start=Position(), part_characters=30) == whole


def test_progress_ends_at_the_size_of_all_files(tmp_path):
    files = [write(tmp_path / "a.txt", "x\n"), write(tmp_path / "b.jsonl", '{"text": "y"}')]
    sources = find_sources(files)
    reader = DocumentReader(sources.files, ReadOptions())
    seen = [reader.bytes_done for _ in reader.parts()]
    assert seen == sorted(seen)
    assert reader.bytes_done == sources.bytes
