"""Finding input files and reading their bytes: every compression, and every way a file can be broken."""

import bz2
import gzip
import lzma
import sys

import pytest

from electra_fast.data.sources import ByteStream, find_sources, optional_module
from electra_fast.errors import CorpusError

TEXT = b"one line\nand another\n\nnext document\n" * 200


def zst(data):
    zstandard = pytest.importorskip("zstandard", reason="needs the optional package zstandard")
    half = len(data) // 2  # two frames, as `cat a.zst b.zst` makes
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))


COMPRESSORS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zst}


def names(directory, *inputs, **options):
    return [str(source.path.relative_to(directory)) for source in find_sources(inputs, **options).files]


def content(path):
    (source,) = find_sources([path]).files
    with ByteStream(source) as stream:
        return b"".join(stream.blocks())


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.txt",
        "a.jsonl.gz",
        "sub/c.parquet",
        "sub/deep/d",
        "notes.md",
        "sub/x.py",
        ".hidden.txt",
        ".git/e.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_a_directory_is_walked_in_order_and_says_what_it_skips(tree):
    assert names(tree, tree) == ["a.jsonl.gz", "b.txt", "sub/c.parquet", "sub/deep/d"]
    assert [path.name for path in find_sources([tree]).skipped] == ["notes.md", "x.py"]


def test_formats_come_from_names(tree):
    found = {source.path.name: (source.format, source.compression) for source in find_sources([tree]).files}
    assert found["a.jsonl.gz"] == ("jsonl", ".gz")
    assert found["b.txt"] == found["d"] == ("text", "")
    assert found["c.parquet"] == ("parquet", "")


def test_a_pattern_or_a_name_takes_any_file_as_text(tree):
    assert names(tree, str(tree / "**/*.md"), tree / "sub/x.py") == ["notes.md", "sub/x.py"]
    assert {source.format for source in find_sources([tree / "notes.md"]).files} == {"text"}


def test_the_output_is_no_input(tree):
    assert names(tree, tree, exclude=tree / "sub") == ["a.jsonl.gz", "b.txt"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["missing.txt"], "input .*missing.txt does not exist"),
        (["*.nothing"], "no file matches"),
        (["notes"], r"holds no \.txt, \.jsonl, \.parquet or \.arrow file \(found: \.md\)"),
        (["empty"], "found: no file at all"),
        (["notes/a.md", "notes/*.md"], "given twice"),
        (["c.parquet.gz"], "parquet is compressed inside"),
    ],
)
def test_input_that_is_not_there(tmp_path, inputs, message):
    (tmp_path / "notes").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes/a.md").write_text("x")
    (tmp_path / "c.parquet.gz").write_text("x")
    with pytest.raises(CorpusError, match=message):
        find_sources([str(tmp_path / name) for name in inputs])


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_every_compression(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](TEXT))
    assert content(path) == TEXT


def test_a_long_zstandard_window(tmp_path):
    """What ``zstd --long=31`` writes: a frame (RFC 8878) that asks for a window of 2 GiB."""
    pytest.importorskip("zstandard", reason="needs the optional package zstandard")
    text = b"one line\n"
    header = b"\x28\xb5\x2f\xfd" + bytes([0, (31 - 10) << 3])  # magic number, no flags, window of 2^31 bytes
    last_raw_block = (1 | len(text) << 3).to_bytes(3, "little") + text
    (tmp_path / "a.txt.zst").write_bytes(header + last_raw_block)
    assert content(tmp_path / "a.txt.zst") == text


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](TEXT)[:-9])
    with pytest.raises(CorpusError, match="is cut short"):
        content(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_not_what_the_name_says(tmp_path, suffix):
    COMPRESSORS[suffix](b"")  # skips where the package is missing
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(b"this is not compressed at all, whatever the name says")
    with pytest.raises(CorpusError, match=r"a\.txt"):
        content(path)


def test_damaged_in_the_middle(tmp_path):
    path = tmp_path / "a.txt.gz"
    packed = bytearray(gzip.compress(bytes(range(256)) * 64))
    packed[30:60] = bytes(30)
    path.write_bytes(packed)
    with pytest.raises(CorpusError, match=r"a\.txt\.gz is damaged, or not a \.gz file"):
        content(path)


def test_unreadable(tmp_path):
    (source,) = find_sources([__file__]).files
    gone = type(source)(tmp_path / "gone", "text", "", 0, 0)
    with pytest.raises(CorpusError, match=r"cannot read .*gone: No such file"):
        ByteStream(gone)


def test_progress_counts_bytes_of_the_file(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(TEXT))
    (source,) = find_sources([path]).files
    with ByteStream(source) as stream:
        list(stream.blocks())
        assert stream.position == source.bytes == path.stat().st_size


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CorpusError, match=r"reading a \.zst file needs the package zstandard: pip install zstandard"):
        optional_module("zstandard", "a .zst file")
