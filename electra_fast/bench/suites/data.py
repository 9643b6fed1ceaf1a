"""The corpus: text to token shards, and shards to packed batches, in tokens a second."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_fast.bench.case import Case, Contender
from electra_fast.data import PackedBatches, PrepareOptions, prepare, python_docs

LENGTH, BATCH = 128, 16
TOKENS = 200_000  # that a call of the batches' case assembles


@dataclass
class Corpus:
    """A text, a tokenizer trained on it, and its shards, in a directory that goes when the corpus does."""

    folder: tempfile.TemporaryDirectory[str]
    text: Path
    prepared: Path
    tokens: int

    @property
    def shards(self) -> list[Path]:
        return sorted(self.prepared.glob("train-*.shard"))


@functools.cache
def _documentation() -> str:
    with tempfile.TemporaryDirectory() as folder:
        python_docs.write(Path(folder, "text.txt"))
        return Path(folder, "text.txt").read_text(encoding="utf-8")


def corpus(characters: int | None = None) -> Corpus:
    """What every Python carries: documentation strings, cut to so many characters."""
    folder = tempfile.TemporaryDirectory(prefix="electra-bench-")
    text = Path(folder.name, "text.txt")
    text.write_text(_documentation()[:characters], encoding="utf-8")
    prepared = Path(folder.name, "corpus")
    options = {"vocab_size": 4096, "max_length": LENGTH, "validation_fraction": 0.0, "workers": 1}
    prepare(PrepareOptions([text], prepared, **options))
    made = Corpus(folder, text, prepared, 0)
    made.tokens = sum(path.stat().st_size for path in made.shards) // 2
    return made


def _prepare(shared: Corpus) -> Callable[[], Tensor]:
    output = Path(shared.folder.name, "again")

    def run() -> Tensor:
        shutil.rmtree(output, ignore_errors=True)
        tokenizer = shared.prepared / "tokenizer.json"
        prepare(PrepareOptions([shared.text], output, tokenizer=tokenizer, max_length=LENGTH, validation_fraction=0.0))
        return _count(sum(path.stat().st_size for path in output.glob("train-*.shard")) // 2)

    return run


def _encode_batch(shared: Corpus) -> Callable[[], Tensor]:
    """`tokenizers` as one uses it: all documents at once, in its own threads, into one array on the disk."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared.prepared / "tokenizer.json"))

    def run() -> Tensor:
        lines = [line for line in shared.text.read_text(encoding="utf-8").split("\n") if line]
        encoded = tokenizer.encode_batch(lines, add_special_tokens=False)
        ids = np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encoded])
        np.save(Path(shared.folder.name, "ids.npy"), ids)
        return _count(len(ids))

    return run


def _count(tokens: int) -> Tensor:
    return torch.tensor([float(tokens)])


def _drawn(batches: Callable[[Corpus], Iterator[tuple[Any, int]]]) -> Callable[[Corpus], Callable[[], Tensor]]:
    """Assemble batches until they hold `TOKENS` real tokens."""

    def make(shared: Corpus) -> Callable[[], Tensor]:
        stream = batches(shared)

        def run() -> Tensor:
            tokens = 0
            while tokens < TOKENS:
                tokens += next(stream)[1]
            return _count(min(tokens, TOKENS))

        return run

    return make


def _ours(shared: Corpus) -> Iterator[tuple[Tensor, int]]:
    with PackedBatches(shared.prepared, tokens=BATCH * LENGTH, threads=1) as batches:
        for batch in batches:
            yield batch.input_ids, batch.tokens


def _padded(shared: Corpus) -> Iterator[tuple[Tensor, int]]:
    from electra_fast.bench.peers.loading import padded

    return padded(shared.shards, BATCH)


def _flattened(shared: Corpus) -> Iterator[tuple[Tensor, int]]:
    from electra_fast.bench.peers.loading import flattened

    return flattened(shared.shards, BATCH)


def cases(device: str) -> list[Case]:
    """On the CPU, whatever the device."""
    loader = "shuffled, in the main process"
    batches = (
        Contender("torch DataLoader, padded", _drawn(_padded), f"pad_sequence, {loader}"),
        Contender("electra-fast", _drawn(_ours), "PackedBatches, one thread", ours=True),
        Contender("transformers, flattened", _drawn(_flattened), f"DataCollatorWithFlattening, {loader}"),
    )
    text = (
        Contender("tokenizers", _encode_batch, "encode_batch, its own threads, one array"),
        Contender("electra-fast", _prepare, "prepare: read, tokenise, build examples, write shards", ours=True),
    )
    common: dict[str, Any] = {"suite": "data", "dtype": "int64", "inputs": lambda shared: (), "memory": False}
    return [
        Case(
            name="batches", contenders=batches, setup=lambda: corpus(1_000_000), tokens=TOKENS, level="quick", **common
        ),
        # Ours adds [CLS] and [SEP], two or three to 128 tokens, and more where documents are as short as these.
        Case(name="prepare", contenders=text, setup=corpus, tolerance=0.12, **common),
    ]
