"""Token shards: the file format of a prepared corpus (docs/design.md, "Token shards"), written and read.

A shard, little-endian::

    header (64 bytes)   magic EFSHARD1, uint32 version = 1, uint32 bytes per token (2 or 4),
                        uint64 examples n, uint64 tokens m, zeros
    offsets             uint64 [n + 1], in tokens; offsets[0] = 0, offsets[n] = m
    first lengths       uint32 [n], length of segment 0 with its [CLS] and [SEP]
    tokens              uint16 or uint32 [m]
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from electra_fast.errors import ShardError
from electra_fast.files import atomic_writer

MAGIC = b"EFSHARD1"
VERSION = 1
HEADER_BYTES = 64
_HEADER = struct.Struct("<8sIIQQ")
_AGAIN = "Copy it again, or run prepare again with --overwrite"


def token_dtype(vocab_size: int) -> np.dtype:
    """Smallest unsigned type that holds every id of a vocabulary: uint16 up to 65,536 entries, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True)
class Examples:
    """Examples end to end: ``tokens [m]``, ``lengths [n]``, ``first_lengths [n]`` (segment 0 with [CLS] and [SEP])."""

    tokens: NDArray[np.unsignedinteger]
    lengths: NDArray[np.uint32]
    first_lengths: NDArray[np.uint32]

    @staticmethod
    def empty(dtype: np.dtype) -> Examples:
        nothing = np.zeros(0, np.uint32)
        return Examples(np.zeros(0, dtype), nothing, nothing)

    @staticmethod
    def concatenate(parts: list[Examples]) -> Examples:
        return Examples(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.first_lengths for part in parts]),
        )


@dataclass(frozen=True)
class ShardEntry:
    """What the manifest says of one shard file; ``crc32`` covers the whole file."""

    name: str
    bytes: int
    crc32: int
    examples: int
    tokens: int


def write_shard(path: Path, examples: Examples) -> ShardEntry:
    """Write one shard atomically and return its manifest entry.

    Raises:
        DiskFullError: no space left; no file is left behind.
    """
    count, total = len(examples.lengths), len(examples.tokens)
    width = examples.tokens.dtype.itemsize
    offsets = np.zeros(count + 1, "<u8")
    np.cumsum(examples.lengths, out=offsets[1:])
    header = _HEADER.pack(MAGIC, VERSION, width, count, total).ljust(HEADER_BYTES, b"\0")
    tokens = np.ascontiguousarray(examples.tokens, f"<u{width}")
    parts = (header, offsets.data, np.ascontiguousarray(examples.first_lengths, "<u4").data, tokens.data)
    crc = size = 0
    with atomic_writer(path) as stream:
        for part in parts:
            stream.write(part)
            crc = zlib.crc32(part, crc)
            size += memoryview(part).nbytes
    return ShardEntry(path.name, size, crc, count, total)


class Shard:
    """A shard, memory-mapped and read-only: ``len(shard)`` examples, ``shard.example(i)``.

    Raises:
        ShardError: the file is missing, is no shard, has another version, or its size is not what its header says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            with open(self.path, "rb") as stream:
                header = stream.read(HEADER_BYTES)
        except FileNotFoundError:
            raise ShardError(f"shard {self.path} is missing. {_AGAIN}") from None
        if len(header) < HEADER_BYTES or header[:8] != MAGIC:
            raise ShardError(f"{self.path} is damaged or no token shard: expected it to begin with {MAGIC!r}. {_AGAIN}")
        _, version, width, count, total = _HEADER.unpack_from(header)
        if version != VERSION:
            raise ShardError(
                f"shard {self.path} has format version {version}, this electra_fast reads version {VERSION}. "
                "Run prepare again with --overwrite"
            )
        if width not in (2, 4):
            raise ShardError(f"shard {self.path} is damaged: {width} bytes a token, expected 2 or 4. {_AGAIN}")
        expected = HEADER_BYTES + 8 * (count + 1) + 4 * count + width * total
        if size != expected:
            raise ShardError(f"shard {self.path} is truncated or damaged: {size} bytes, expected {expected}. {_AGAIN}")
        data = np.memmap(self.path, mode="r", dtype=np.uint8)
        first_at = HEADER_BYTES + 8 * (count + 1)
        tokens_at = first_at + 4 * count
        self.offsets: NDArray[np.uint64] = data[HEADER_BYTES:first_at].view("<u8")
        self.first_lengths: NDArray[np.uint32] = data[first_at:tokens_at].view("<u4")
        self.tokens: NDArray[np.unsignedinteger] = data[tokens_at:].view(f"<u{width}")
        if self.offsets[0] != 0 or self.offsets[-1] != total:
            raise ShardError(f"shard {self.path} is damaged: its offsets do not span its {total} tokens. {_AGAIN}")

    def __len__(self) -> int:
        return len(self.first_lengths)

    def example(self, index: int) -> tuple[NDArray[np.unsignedinteger], int]:
        """``(token ids [length], length of segment 0)`` of example ``index`` (negative counts from the end)."""
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"example {index} of shard {self.path.name}, which has {count}")
        index %= count
        return self.tokens[int(self.offsets[index]) : int(self.offsets[index + 1])], int(self.first_lengths[index])

    def examples(self) -> Examples:
        """All examples, copied into memory."""
        lengths = np.diff(self.offsets).astype(np.uint32)
        return Examples(np.array(self.tokens), lengths, np.array(self.first_lengths))


def verify_shard(directory: Path, entry: ShardEntry) -> Shard:
    """Open a shard and compare size, counts and crc32 with its manifest entry.

    Raises:
        ShardError: anything differs; names the file, what was expected and what to do.
    """
    path = directory / entry.name
    shard = Shard(path)
    found = f"{path.stat().st_size} bytes, {len(shard)} examples, {len(shard.tokens)} tokens"
    expected = f"{entry.bytes} bytes, {entry.examples} examples, {entry.tokens} tokens"
    if found != expected:
        raise ShardError(f"shard {path} does not fit its manifest: it has {found}, expected {expected}. {_AGAIN}")
    crc = file_crc32(path)
    if crc != entry.crc32:
        raise ShardError(f"shard {path} is damaged: crc32 {crc:08x}, expected {entry.crc32:08x}. {_AGAIN}")
    return shard


def file_crc32(path: Path) -> int:
    """crc32 of a file's bytes, read in blocks of 4 MiB."""
    crc = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc
