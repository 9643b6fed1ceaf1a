"""Shards of known content: token ids count upwards through the corpus, so that a lost, doubled or moved token shows."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from electra_fast.data.manifest import Manifest, Split
from electra_fast.data.shards import Examples, ShardEntry, file_crc32, write_shard

WriteShard = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteShard:
    """``write(name, lengths, first_lengths=lengths, start=0, width=2)`` writes a shard of ids start, start + 1, …"""

    def shard(
        name: str,
        lengths: Sequence[int] | NDArray[np.integer],
        first_lengths: Sequence[int] | NDArray[np.integer] | None = None,
        *,
        start: int = 0,
        width: int = 2,
    ) -> Path:
        sizes = np.asarray(lengths, np.uint32)
        firsts = sizes if first_lengths is None else np.asarray(first_lengths, np.uint32)
        ids = np.arange(start, start + int(sizes.sum())).astype(f"<u{width}")
        write_shard(tmp_path / name, Examples(ids, sizes, firsts))
        return tmp_path / name

    return shard


@pytest.fixture
def corpus(write: WriteShard) -> list[Path]:
    """Three shards (one empty, one of 32-bit tokens) of 330 examples: ids all different, mixed lengths and segments."""
    rng = np.random.default_rng(7)
    lengths = np.where(rng.random(330) < 0.6, 24, rng.integers(3, 25, 330))
    firsts = np.where(rng.random(330) < 0.5, lengths, rng.integers(1, lengths + 1))
    split = int(lengths[:200].sum())
    return [
        write("a.shard", lengths[:200], firsts[:200], start=100),
        write("empty.shard", []),
        write("b.shard", lengths[200:], firsts[200:], start=100 + split, width=4),
    ]


@pytest.fixture
def prepared(write: WriteShard, tmp_path: Path) -> Path:
    """A corpus directory of 12 training examples of 5 tokens and 2 of validation with 11 (ids from 500); [PAD] is 3."""
    splits = {}
    for name, lengths, start in (("train", [5] * 12, 100), ("validation", [6, 5], 500)):
        path = write(f"{name}-00000.shard", lengths, start=start)
        entry = ShardEntry(path.name, path.stat().st_size, file_crc32(path), len(lengths), sum(lengths))
        splits[name] = Split(examples=len(lengths), tokens=sum(lengths), shards=[entry])
    Manifest(
        options={"max_length": 6},
        tokenizer_hash="0" * 64,
        vocab_size=600,
        special_tokens={"pad": 3, "unk": 4, "cls": 5, "sep": 6, "mask": 7},
        input_files=1,
        input_bytes=1,
        long_lines=0,
        splits=splits,
    ).save(tmp_path)
    return tmp_path
