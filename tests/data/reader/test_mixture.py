"""Several corpora read as one: shares of the tokens, an order that no rank and no interruption changes, and an oracle
written from docs/design.md, "Packed batches", in plain Python."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from electra_fast._native import BatchReader, KeyedPermutation, pack_window

from electra_fast.data.batches import PackedBatch, PackedBatches
from electra_fast.data.manifest import Corpus, Manifest, Split, open_corpus
from electra_fast.data.mixture import MixturePart, mean_length, mix, rates
from electra_fast.data.shards import Examples, ShardEntry, file_crc32, write_shard
from electra_fast.errors import CheckpointError, ConfigError, ShardError

MakeCorpus = Callable[..., Corpus]
OPTIONS = {"tokens": 256, "max_sequences": 64, "window": 120}
SPECIAL = {"pad": 3, "unk": 4, "cls": 5, "sep": 6, "mask": 7}


@pytest.fixture
def make(tmp_path: Path) -> MakeCorpus:
    """``make(name, start, train, validation=(), tokenizer="0")``: a corpus of examples of those lengths whose ids count
    from ``start`` on."""

    def corpus(name: str, start: int, train: object, validation: object = (), tokenizer: str = "0") -> Corpus:
        directory = tmp_path / name
        directory.mkdir()
        splits = {}
        for split, lengths in (
            ("train", np.asarray(train, np.uint32)),
            ("validation", np.asarray(validation, np.uint32)),
        ):
            shards = []
            if len(lengths):
                ids = np.arange(start, start + lengths.sum()).astype("<u4")
                path = directory / f"{split}-00000.shard"
                write_shard(path, Examples(ids, lengths, lengths))
                count = (len(lengths), int(lengths.sum()))
                shards = [ShardEntry(path.name, path.stat().st_size, file_crc32(path), *count)]
            splits[split] = Split(examples=len(lengths), tokens=int(lengths.sum()), shards=shards)
        options = {"max_length": max(map(int, train))}
        Manifest(options, tokenizer * 64, 100, SPECIAL, 1, 1, 0, splits).save(directory)
        return open_corpus(directory)

    return corpus


@pytest.fixture
def corpora(make: MakeCorpus) -> list[Corpus]:
    """Three of very different sizes and lengths; ids tell them apart: from 10,000, 20,000 and 30,000 on."""
    rng = np.random.default_rng(1)
    return [
        make("long", 10_000, rng.integers(20, 33, 300), [20, 30]),
        make("short", 20_000, rng.integers(3, 9, 900)),
        make("tiny", 30_000, [16] * 20, [16] * 3),
    ]


def sources(batch: PackedBatch) -> np.ndarray:
    """Which corpus each token is of."""
    return batch.input_ids[: batch.tokens].numpy() // 10_000 - 1


def names(batch: PackedBatch) -> list[int]:
    """The first token of each example."""
    return batch.input_ids[batch.cu_seqlens[: batch.sequences].long()].tolist()


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1, 1, 1), (5, 90, 0.5)])
def test_weights_are_shares_of_the_tokens(corpora: list[Corpus], weights: tuple[float, ...]) -> None:
    counts = np.zeros(3)
    batches = PackedBatches(mix(corpora, weights), **OPTIONS)
    for _ in range(400):
        counts += np.bincount(sources(next(batches)), minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), np.array(weights) / sum(weights), atol=0.01)


def test_without_weights_every_corpus_is_read_equally_often(corpora: list[Corpus]) -> None:
    mixture = mix(corpora)
    tokens = [corpus.manifest.splits["train"].tokens for corpus in corpora]
    np.testing.assert_allclose(mixture.weights, np.array(tokens) / sum(tokens))
    examples = [name for batch in PackedBatches(mixture, **OPTIONS, epochs=1) for name in names(batch)]
    assert len(examples) == pytest.approx(1220, abs=120)
    assert len(set(examples)) == pytest.approx(1220, abs=120)


def test_a_corpus_is_read_to_its_end_before_it_is_repeated(corpora: list[Corpus]) -> None:
    """And in a new order each time."""
    batches = PackedBatches(mix(corpora, (0.4, 0.3, 0.3)), **OPTIONS)
    tiny = [name for _ in range(250) for name in names(next(batches)) if name >= 30_000]
    # Within a window the examples come in packing's order, so that only whole windows have whole epochs.
    assert len(tiny) > 800
    counts = np.bincount(np.array(tiny) - 30_000, minlength=320)[::16]
    assert counts.max() - counts.min() <= 3


def oracle(corpora: list[Corpus], weights: tuple[float, ...], seed: int, windows: int) -> list[list[int]]:
    """First token of each example of the batches, from the definition."""
    tables = [[shard.example(i)[0] for shard in c.shards["train"] for i in range(len(shard))] for c in corpora]
    wanted = [Fraction(w) * len(table) / sum(map(len, table)) for w, table in zip(weights, tables, strict=True)]
    rate = [int(OPTIONS["window"] * w / sum(wanted) * 2**32) for w in wanted]
    per_epoch = -(-sum(map(len, tables)) // OPTIONS["window"])
    batches = []
    for number in range(windows):
        epoch, window = divmod(number, per_epoch)
        given = []
        for k, table in enumerate(tables):
            for j in range(number * rate[k] >> 32, (number + 1) * rate[k] >> 32):
                turn, place = divmod(j, len(table))
                given.append(table[KeyedPermutation(len(table), seed=seed, epoch=turn, corpus=k)[place]])
        chosen = [given[i] for i in KeyedPermutation(len(given), seed=seed, epoch=epoch, mixed=window)]
        limits = {"tokens": OPTIONS["tokens"], "max_sequences": OPTIONS["max_sequences"]}
        members, begins = pack_window(list(map(len, chosen)), **limits)
        for b in KeyedPermutation(len(begins) - 1, seed=seed, epoch=epoch, window=window):
            batches.append([int(chosen[m][0]) for m in members[begins[b] : begins[b + 1]]])
    return batches


def test_the_stream_equals_the_oracle(corpora: list[Corpus]) -> None:
    """Also where an epoch and the small corpora end."""
    mixture = mix(corpora, (0.5, 0.25, 0.25))
    expected = oracle(corpora, mixture.weights, seed=2**40 + 1, windows=25)
    batches = PackedBatches(mixture, **OPTIONS, seed=2**40 + 1)
    assert [names(next(batches)) for _ in expected] == expected
    assert batches.state_dict()["epoch"] == 2


@pytest.mark.parametrize("delivered", [0, 1, 30, 111])
def test_resuming_goes_on_exactly(corpora: list[Corpus], delivered: int) -> None:
    mixture = mix(corpora, (0.5, 0.25, 0.25))
    batches = PackedBatches(mixture, **OPTIONS, seed=4)
    for _ in range(delivered):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    resumed = PackedBatches(mixture, **OPTIONS, seed=4, threads=1)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert all(names(next(resumed)) == names(next(batches)) for _ in range(60))


def test_ranks_share_the_stream(corpora: list[Corpus]) -> None:
    mixture = mix(corpora, (1, 2, 3))
    everything = list(PackedBatches(mixture, **OPTIONS, epochs=1))
    ranks = [PackedBatches(mixture, **OPTIONS, epochs=1, rank=rank, world=3) for rank in range(3)]
    for step in range(len(everything) // 3):
        assert all(names(next(ranks[rank])) == names(everything[3 * step + rank]) for rank in range(3))
        assert len({json.dumps(batches.state_dict()) for batches in ranks}) == 1


def test_held_out_text_of_those_that_have_some(corpora: list[Corpus]) -> None:
    """The second corpus has none: its weight goes to the others. One pass without shuffling is one of each part."""
    (batch,) = PackedBatches(mix(corpora, (1, 1, 1)), "validation", tokens=256, shuffle=False)
    assert set(sources(batch)) == {0, 2}
    assert 10_000 in names(batch)
    assert 30_000 in names(batch)


def test_one_corpus_in_a_mixture_is_read_whole(corpora: list[Corpus]) -> None:
    alone = [n for b in PackedBatches(mix(corpora[:1]), **{**OPTIONS, "window": 100}, epochs=1) for n in names(b)]
    assert sorted(alone) == sorted(n for b in PackedBatches(corpora[0], **OPTIONS, epochs=1) for n in names(b))


def test_rates_are_exact() -> None:
    parts = [MixturePart(examples=10, tokens=100, weight=0.5), MixturePart(examples=100, tokens=500, weight=0.5)]
    assert mean_length(parts) == pytest.approx(1 / (0.5 / 10 + 0.5 / 5))
    assert rates(parts, 9) == [3 << 32, 6 << 32]
    assert rates(parts, 10) == [(10 << 32) // 3, (20 << 32) // 3]


def test_a_place_in_another_mixture_is_refused(corpora: list[Corpus]) -> None:
    state = PackedBatches(mix(corpora, (1, 1, 1)), **OPTIONS).state_dict()
    for other in (mix(corpora, (1, 1, 2)), mix(corpora[:2], (1, 1)), corpora[0]):
        with pytest.raises(CheckpointError, match=r"belongs to other batches, with .*mixture="):
            PackedBatches(other, **OPTIONS).load_state_dict(state)
    alone = PackedBatches(corpora[0], **OPTIONS).state_dict()
    with pytest.raises(CheckpointError, match=r"mixture=None \(now \[\["):
        PackedBatches(mix(corpora, (1, 1, 1)), **OPTIONS).load_state_dict(alone)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1, 1), "data_weights must be one number for each of the 3 corpora, got 2: 1, 1"),
        ((1, 0, 1), "data_weights must be positive numbers, got 0"),
        ((1, -1, 1), "must be positive numbers, got -1"),
        ((1, float("inf"), 1), "got inf"),
        ((1, float("nan"), 1), "got nan"),
    ],
)
def test_weights_that_are_none(corpora: list[Corpus], weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mix(corpora, weights)


def test_corpora_that_do_not_go_together(corpora: list[Corpus], make: MakeCorpus) -> None:
    other = make("other", 0, [5] * 9, tokenizer="1")
    with pytest.raises(ShardError, match=r"other was prepared with another tokenizer .1111.* prepare it again with"):
        mix([corpora[0], other])
    with pytest.raises(ConfigError, match="long is given twice"):
        mix([corpora[0], corpora[1], corpora[0]])
    with pytest.raises(ConfigError, match="at least one"):
        mix([])


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ([(300, 1 << 32), (0, 1 << 32)], "every corpus of a mixture must have examples"),
        ([(300, 121 << 32)], "can give more than the window's 120 examples"),
        ([(200, 1 << 32), (100, 1 << 31)], "rates of the 2 corpora .* at least as many examples"),
        ([(299, 100 << 32)], "the mixture have 299 examples, the shards 300"),
    ],
)
def test_the_native_reader_checks_a_mixture(corpora: list[Corpus], mixture: list[object], message: str) -> None:
    place = {"epoch": 0, "window": 0, "bin": 0}
    delivery = {
        "seed": 0,
        "pad_id": 0,
        "shuffle": True,
        "epochs": 0,
        "rank": 0,
        "world": 1,
        "threads": 1,
        "prefetch": 1,
    }
    with pytest.raises(ValueError, match=message):
        BatchReader(list(map(str, corpora[0].paths("train"))), **OPTIONS, **delivery, state=place, mixture=mixture)
