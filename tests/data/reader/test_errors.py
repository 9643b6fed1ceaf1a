"""Damaged shards, impossible options and foreign states: what is refused, and that the message says what to do."""

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from electra_fast._native import BatchReader

from electra_fast.data.batches import PackedBatches
from electra_fast.errors import CheckpointError, ConfigError, CorpusError, ElectraError, ShardError

START = {"epoch": 0, "window": 0, "bin": 0}
OPTIONS = {"tokens": 64, "max_sequences": 6, "window": 40, "pad_id": 0}


def native(paths: list[Path], **changes: object) -> BatchReader:
    options = {
        "tokens": 64, "max_sequences": 8, "window": 16, "seed": 0, "pad_id": 0, "shuffle": True, "epochs": 0,
        "rank": 0, "world": 1, "threads": 1, "prefetch": 2, "state": START,
    }  # fmt: skip
    return BatchReader([str(path) for path in paths], **{**options, **changes})


def put(path: Path, at: int, value: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(at)
        stream.write(value)


# n = 3 examples: offsets at 64 … 95, first-segment lengths at 96 … 107, tokens from 108
DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("empty", lambda p: p.write_bytes(b""), "0 bytes, shorter than its header of 64"),
    ("short", lambda p: p.write_bytes(p.read_bytes()[:63]), "63 bytes, shorter"),
    (
        "truncated",
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        "truncated or damaged: its header announces 3 examples",
    ),
    ("longer", lambda p: p.write_bytes(p.read_bytes() + b"\0"), "which take 142 bytes, the file has 143 bytes"),
    ("magic", lambda p: put(p, 0, b"X"), "expected it to begin with EFSHARD1"),
    ("version", lambda p: put(p, 8, b"\2"), "format version 2, this electra_fast reads version 1"),
    ("width", lambda p: put(p, 12, b"\3"), "3 bytes per token, expected 2 or 4"),
    ("examples", lambda p: put(p, 16, struct.pack("<Q", 2**61)), "truncated or damaged"),
    ("tokens", lambda p: put(p, 24, struct.pack("<Q", 2**63)), "truncated or damaged"),
    ("overflow", lambda p: put(p, 16, struct.pack("<QQ", 2**62, 35)), "truncated or damaged"),  # 12n = 0 modulo 2^64
    ("first offset", lambda p: put(p, 64, b"\1"), "its offsets do not span its 17 tokens"),
    ("last offset", lambda p: put(p, 88, b"\1"), "its offsets do not span its 17 tokens"),
    ("descending", lambda p: put(p, 72, b"\x0c"), "example 1 reaches from token 12 to 9"),
    ("empty example", lambda p: put(p, 72, b"\x09"), "example 1 reaches from token 9 to 9"),
    ("outside", lambda p: put(p, 79, b"\xff"), "example 0 reaches from token 0 to 18374686479671623685"),
    ("segment", lambda p: put(p, 100, b"\x05"), "the first segment of example 1 has 5 tokens, the example 4"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_damaged_shard_is_refused(write, change: Callable[[Path], None], message: str) -> None:
    path = write("t.shard", [5, 4, 8])
    native([path]).close()
    change(path)
    with pytest.raises(ShardError, match=message) as caught:
        native([path])
    assert str(path) in str(caught.value)
    assert "prepare again" in str(caught.value)


def test_a_missing_or_unreadable_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"t\.shard is missing"):
        native([tmp_path / "t.shard"])
    with pytest.raises(ShardError, match="cannot be read: mmap"):
        native([tmp_path])
    with pytest.raises(ShardError, match="missing"):
        PackedBatches([tmp_path / "t.shard"], tokens=8, pad_id=0)


def test_a_damaged_corpus_directory_is_refused(prepared: Path) -> None:
    """A changed token shows in the crc32 alone: with verify=False only sizes and structure are checked."""
    shard = prepared / "train-00000.shard"
    put(shard, shard.stat().st_size - 1, b"\x77")
    with pytest.raises(ShardError, match=r"train-00000\.shard is damaged: crc32"):
        PackedBatches(prepared, tokens=32)
    next(PackedBatches(prepared, tokens=32, verify=False))
    with pytest.raises(ShardError, match="not a prepared corpus"):
        PackedBatches(prepared / "nowhere", tokens=32)


def test_an_unknown_split_is_refused(prepared: Path) -> None:
    with pytest.raises(ConfigError, match="split must be one of train, validation, got 'test'"):
        PackedBatches(prepared, "test", tokens=32)


def test_the_split_is_named_when_it_is_too_small(prepared: Path) -> None:
    with pytest.raises(CorpusError, match=r"the validation split of .* has 11 tokens in 2 examples.* at most 11"):
        PackedBatches(prepared, "validation", tokens=32)


def test_an_example_longer_than_a_batch_names_what_to_raise(write) -> None:
    path = write("t.shard", [5, 40, 60])
    with pytest.raises(
        CorpusError, match=r"example 2 of shard .* has 60 tokens, more than the 50 .* raise tokens to at least 60"
    ):
        PackedBatches([path], tokens=50, pad_id=0)


def test_a_corpus_without_examples_is_refused(write) -> None:
    with pytest.raises(CorpusError, match="no shard was given"):
        native([])
    with pytest.raises(CorpusError, match="the 1 shards hold no example"):
        native([write("t.shard", [])])
    for shuffle in (True, False):
        with pytest.raises(CorpusError, match="the list of 1 shards is empty"):
            PackedBatches([write("t.shard", [])], tokens=8, pad_id=0, shuffle=shuffle)


def test_a_corpus_smaller_than_a_batch_says_what_it_has(write) -> None:
    path = write("t.shard", [5, 4])
    with pytest.raises(
        CorpusError, match="has 9 tokens in 2 examples, fewer than one batch of tokens=10: lower tokens to at most 9"
    ):
        PackedBatches([path], tokens=10, pad_id=0)
    assert next(PackedBatches([path], tokens=9, pad_id=0)).tokens == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens must be an integer, 1 <= tokens < 2"),
        ({"tokens": 64.0}, "tokens must be an integer.*got 64.0"),
        ({"tokens": True}, "tokens must be an integer.*got True"),
        ({"tokens": 2**31}, "tokens must be an integer"),
        ({"max_sequences": 0}, "max_sequences must be an integer, 1 <="),
        ({"max_sequences": 65}, "max_sequences must be from 1 to tokens=64, got 65"),
        ({"window": 0}, "window must be an integer, 1 <="),
        ({"seed": -1}, "seed must be an integer, 0 <= seed < 2.63, got -1"),
        ({"seed": 2**63}, "seed must be"),
        ({"epochs": 0}, "epochs must be an integer, 1 <="),
        ({"rank": 2, "world": 2}, "rank must be below world=2, got 2"),
        ({"world": 0}, "world must be"),
        ({"threads": 257}, "threads must be from 1 to 256, got 257"),
        ({"prefetch": 65537}, "prefetch must be from 1 to 65536, got 65537"),
        ({"pad_id": None}, "pad_id is missing"),
    ],
)
def test_options_out_of_range(corpus: list[Path], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PackedBatches(corpus, **{**OPTIONS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens must be from 1 to 2.31 - 1, got 0"),
        ({"window": 0}, "window must be from 1 to"),
        ({"world": 0}, "world must be at least 1, got 0"),
        ({"threads": 0}, "threads must be from 1 to 256, got 0"),
        ({"prefetch": 0}, "prefetch must be from 1 to 65536, got 0"),
        ({"state": {"epoch": 0, "window": 0}}, 'state lacks "bin"'),
        ({"state": {**START, "bin": -1}}, r'state\["bin"\] must be an integer of at least 0, got -1'),
        ({"state": {**START, "bin": "x"}}, r'state\["bin"\] must be an integer of at least 0, got x'),
        ({"state": {**START, "window": 99}}, "names epoch 0, window 99, bin 0, but an epoch has 21 windows"),
        ({"state": {**START, "bin": 999}}, "bin 999, but this window has .* bins: was it saved with other shards"),
        ({"state": {**START, "epoch": 2**32}}, "epochs end at 2.32 - 1"),
        ({"state": {**START, "epoch": 3}, "epochs": 2}, "but there are 2 epochs"),
        ({"state": {"epoch": 2, "window": 1, "bin": 0}, "epochs": 2}, "but there are 2 epochs"),
    ],
)
def test_the_native_reader_checks_for_itself(corpus: list[Path], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native(corpus, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 65}, r"tokens=64 \(now 65\)"),
        ({"max_sequences": 5}, r"max_sequences=6 \(now 5\)"),
        ({"window": 41}, r"window=40 \(now 41\)"),
        ({"seed": 1}, r"seed=0 \(now 1\)"),
        ({"shuffle": False}, r"shuffle=True \(now False\)"),
    ],
)
def test_a_state_of_other_batches_is_refused(corpus: list[Path], changes: dict[str, object], message: str) -> None:
    state = PackedBatches(corpus, **OPTIONS).state_dict()
    with pytest.raises(CheckpointError, match=message):
        PackedBatches(corpus, **{**OPTIONS, **changes}).load_state_dict(state)


def test_a_state_of_another_corpus_or_a_damaged_one_is_refused_and_changes_nothing(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **OPTIONS)
    next(batches)
    state = batches.state_dict()
    with pytest.raises(CheckpointError, match=r"corpus_examples=330 \(now 200\)"):
        PackedBatches(corpus[:1], **OPTIONS).load_state_dict(state)
    for damaged in ({}, {"stream": None}, {**state, "bin": "?"}, {k: v for k, v in state.items() if k != "epoch"}):
        with pytest.raises(CheckpointError, match="damaged"):
            batches.load_state_dict(damaged)
    with pytest.raises(CheckpointError, match=r"does not exist.*window 999"):
        batches.load_state_dict({**state, "window": 999})
    assert batches.state_dict() == state
    next(batches)


def test_without_the_native_library_the_error_says_how_to_build_it(
    corpus: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "electra_fast._native", None)
    with pytest.raises(ElectraError, match=r"_native, which is not built .*pip install"):
        PackedBatches(corpus, **OPTIONS)


def test_disk_contents_may_move_while_reading(corpus: list[Path], tmp_path: Path) -> None:
    """A shard that is replaced (a new file under its name, as prepare writes) leaves a running reader its own."""
    expected = PackedBatches(corpus, **OPTIONS)
    batches = PackedBatches(corpus, **OPTIONS, prefetch=1)
    kept = [next(expected).input_ids for _ in range(100)]
    expected.close()
    shutil.copy(corpus[1], tmp_path / "new")
    (tmp_path / "new").replace(corpus[0])
    assert all(next(batches).input_ids.equal(ids) for ids in kept)
