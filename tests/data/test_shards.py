"""Token shards: the layout to the byte, the round trip, and every way a file can be wrong."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.data.shards import (
    HEADER_BYTES,
    Examples,
    Shard,
    file_crc32,
    token_dtype,
    verify_shard,
    write_shard,
)
from electra_fast.errors import ShardError


def examples_of(sequences, dtype="<u2", first=None):
    lengths = np.array([len(s) for s in sequences], np.uint32)
    flat = [token for sequence in sequences for token in sequence]
    return Examples(np.array(flat, dtype), lengths, lengths if first is None else np.array(first, np.uint32))


def test_layout_is_the_documented_one(tmp_path):
    write_shard(tmp_path / "s", examples_of([[2, 7, 3], [2, 9, 3, 8, 3]], first=[3, 3]))
    expected = struct.pack("<8sIIQQ32x", b"EFSHARD1", 1, 2, 2, 8)
    expected += struct.pack("<3Q", 0, 3, 8) + struct.pack("<2I", 3, 3) + struct.pack("<8H", 2, 7, 3, 2, 9, 3, 8, 3)
    assert (tmp_path / "s").read_bytes() == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=9), max_size=8), st.sampled_from(["<u2", "<u4"]))
def test_round_trip(tmp_path_factory, sequences, dtype):
    directory = tmp_path_factory.mktemp("shards")
    entry = write_shard(directory / "s", examples_of(sequences, dtype))
    shard = verify_shard(directory, entry)
    assert len(shard) == len(sequences) == entry.examples
    for index, sequence in enumerate(sequences):
        tokens, first = shard.example(index)
        assert tokens.tolist() == sequence
        assert first == len(sequence)
    copied = shard.examples()
    assert copied.lengths.tolist() == [len(s) for s in sequences]
    assert copied.tokens.dtype == np.dtype(dtype)


def test_examples_are_indexed_like_a_list(tmp_path):
    write_shard(tmp_path / "s", examples_of([[1, 2], [3]]))
    shard = Shard(tmp_path / "s")
    assert shard.example(-1)[0].tolist() == [3]
    with pytest.raises(IndexError, match="example 2"):
        shard.example(2)
    with pytest.raises(IndexError):
        shard.example(-3)


def test_entry_says_what_the_file_is(tmp_path):
    entry = write_shard(tmp_path / "s", examples_of([[1, 2], [3]]))
    content = (tmp_path / "s").read_bytes()
    assert (entry.name, entry.bytes, entry.crc32) == ("s", len(content), zlib.crc32(content))
    assert (entry.examples, entry.tokens) == (2, 3)
    assert file_crc32(tmp_path / "s") == entry.crc32


def test_two_bytes_as_long_as_they_are_enough():
    assert token_dtype(65536).itemsize == 2
    assert token_dtype(65537).itemsize == 4


def damage(path, at, value):
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"X", "no token shard"),
        (8, b"\x02", "format version 2, this electra_fast reads version 1"),
        (12, b"\x03", "3 bytes a token"),
        (16, b"\x05", "truncated or damaged"),
        (HEADER_BYTES, b"\x01", "offsets do not span"),
    ],
)
def test_damaged_header(tmp_path, at, value, message):
    path = tmp_path / "train-00000.shard"
    write_shard(path, examples_of([[1, 2], [3]]))
    damage(path, at, value)
    with pytest.raises(ShardError, match=message) as error:
        Shard(path)
    assert "train-00000.shard" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 10, HEADER_BYTES, -1])
def test_truncated(tmp_path, kept):
    path = tmp_path / "s"
    write_shard(path, examples_of([[1, 2], [3]]))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ShardError, match=r"damaged|truncated"):
        Shard(path)


def test_missing(tmp_path):
    with pytest.raises(ShardError, match="is missing"):
        Shard(tmp_path / "s")


def test_a_flipped_bit_is_found(tmp_path):
    entry = write_shard(tmp_path / "s", examples_of([[1, 2], [3]]))
    damage(tmp_path / "s", entry.bytes - 1, b"\x01")
    Shard(tmp_path / "s")  # the header cannot tell
    with pytest.raises(ShardError, match=f"crc32 .* expected {entry.crc32:08x}"):
        verify_shard(tmp_path, entry)


def test_another_shard_under_the_name_is_found(tmp_path):
    entry = write_shard(tmp_path / "s", examples_of([[1, 2], [3]]))
    write_shard(tmp_path / "s", examples_of([[1, 2], [3], [4]]))
    with pytest.raises(ShardError, match=r"does not fit its manifest: it has .* 3 examples"):
        verify_shard(tmp_path, entry)
