"""Order and packing: properties of the two functions the reader stands on, and the whole stream against an oracle
written from docs/design.md, "Packed batches", in plain Python."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from electra_fast._native import KeyedPermutation, pack_window

from electra_fast.data.batches import PackedBatches, default_max_sequences, default_window
from electra_fast.data.shards import Shard

MASK = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(7):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def permutation(n: int, seed: int, epoch: int, window: int | None = None, **which: int) -> list[int]:
    kind, block = (0, which.get("corpus", 0)) if window is None else (1, window)
    if "mixed" in which:
        kind, block = 2, which["mixed"]
    key = philox((block, kind, 0x52454144, epoch), (seed & MASK, seed >> 32))[:2]
    bits = (n - 1).bit_length()
    low_bits, high_bits = bits // 2, bits - bits // 2
    order = []
    for value in range(n):
        while bits:
            low, high = value % 2**low_bits, value >> low_bits
            for round_ in range(0, 8, 2):
                high ^= philox((low, round_, 0, 0), key)[0] % 2**high_bits
                low ^= philox((high, round_ + 1, 0, 0), key)[0] % 2**low_bits
            value = (high << low_bits) + low
            if value < n:
                break
        order.append(value)
    return order


def best_fit(lengths: list[int], tokens: int, max_sequences: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for example, length in enumerate(lengths):
        rooms = [tokens - sum(lengths[i] for i in members) for members in bins]
        fitting = [b for b, room in enumerate(rooms) if room >= length and len(bins[b]) < max_sequences]
        if fitting:
            bins[min(fitting, key=lambda b: (rooms[b], b))].append(example)
        else:
            bins.append([example])
    return bins


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 100, 255, 256, 257, 1000, 1025, 4097])
def test_permutation_is_a_bijection_and_changes_with_epoch_seed_and_window(n: int) -> None:
    orders = [
        tuple(KeyedPermutation(n, seed=seed, epoch=epoch, window=window))
        for seed, epoch, window in [
            (0, 0, None),
            (0, 1, None),
            (1, 0, None),
            (2**62 + 1, 0, None),
            (0, 0, 0),
            (0, 0, 1),
        ]
    ]
    for order in orders:
        assert sorted(order) == list(range(n))
    if n > 30:
        assert len(set(orders)) == len(orders)


def test_permutation_equals_the_oracle() -> None:
    for n in (1, 2, 3, 17, 64, 330):
        for seed, epoch, window in [(0, 0, None), (2**40 + 3, 5, None), (9, 1, 4)]:
            expected = permutation(n, seed, epoch, window)
            assert list(KeyedPermutation(n, seed=seed, epoch=epoch, window=window)) == expected
        for which in ({"corpus": 3}, {"mixed": 7}):
            assert list(KeyedPermutation(n, seed=5, epoch=2, **which)) == permutation(n, 5, 2, **which)


def test_permutation_of_a_huge_range_is_random_access_and_stays_inside() -> None:
    n = 2**63 + 12345
    order = KeyedPermutation(n, seed=3, epoch=0)
    images = [order[i] for i in (0, 1, 2, n // 2, n - 1)]
    assert len(set(images)) == 5
    assert all(0 <= image < n for image in images)


def test_permutation_rejects_an_index_outside() -> None:
    with pytest.raises(IndexError, match="index 5 of 5"):
        KeyedPermutation(5, seed=0, epoch=0)[5]


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13])
def test_every_place_gets_every_example_equally_often(n: int) -> None:
    """χ² of the n × n counts over 4000 seeds, (n-1)² degrees of freedom; the bound is exceeded with p ≈ 1e-6."""
    trials = 4000
    counts = np.zeros((n, n))
    for seed in range(trials):
        for place, example in enumerate(KeyedPermutation(n, seed=seed, epoch=1)):
            counts[place, example] += 1
    chi2 = ((counts - trials / n) ** 2 / (trials / n)).sum()
    freedom = (n - 1) ** 2
    assert chi2 < freedom + 4.8 * np.sqrt(2 * freedom) + 16


@pytest.mark.parametrize("max_sequences", [1, 3, 8, 64])
def test_pack_window_equals_the_oracle(max_sequences: int) -> None:
    lengths = np.random.default_rng(max_sequences).integers(1, 65, 200)
    members, begins = pack_window(lengths, tokens=64, max_sequences=max_sequences)
    bins = [members[a:b].tolist() for a, b in itertools.pairwise(begins)]
    assert bins == best_fit(lengths.tolist(), 64, max_sequences)
    assert sorted(members) == list(range(200))
    assert max(map(len, bins)) <= max_sequences
    assert all(lengths[b].sum() <= 64 for b in bins)


def test_pack_window_takes_no_example_and_rejects_what_does_not_fit() -> None:
    members, begins = pack_window(np.zeros(0, np.uint32), tokens=8, max_sequences=1)
    assert (members.tolist(), begins.tolist()) == ([], [0])
    with pytest.raises(ValueError, match="example 1 has 9 tokens, expected 1 to 8"):
        pack_window([8, 9], tokens=8, max_sequences=2)
    with pytest.raises(ValueError, match="example 0 has 0 tokens"):
        pack_window([0], tokens=8, max_sequences=2)
    with pytest.raises(ValueError, match="max_sequences"):
        pack_window([1], tokens=8, max_sequences=0)
    with pytest.raises(ValueError, match="one dimension"):
        pack_window([[1]], tokens=8, max_sequences=1)


@pytest.mark.parametrize(("shuffle", "window"), [(True, 50), (True, 1000), (False, 50)])
def test_the_stream_equals_the_oracle(corpus: list[Path], shuffle: bool, window: int) -> None:
    """Ids, segments, positions and boundaries of two epochs, batch by batch."""
    tokens, max_sequences, seed, pad = 64, 5, 12345678901, 99
    examples = [shard.example(i) for shard in map(Shard, corpus) for i in range(len(shard))]
    epochs = 2
    batches = PackedBatches(
        corpus,
        tokens=tokens,
        max_sequences=max_sequences,
        seed=seed,
        pad_id=pad,
        window=window,
        shuffle=shuffle,
        epochs=epochs,
    )
    for epoch in range(epochs):
        order = permutation(len(examples), seed, epoch) if shuffle else list(range(len(examples)))
        for number, begin in enumerate(range(0, len(order), window)):
            chosen = order[begin : begin + window]
            bins = best_fit([len(examples[i][0]) for i in chosen], tokens, max_sequences)
            for b in permutation(len(bins), seed, epoch, number) if shuffle else range(len(bins)):
                batch = next(batches)
                ids, types, positions, ends = [], [], [], [0]
                for member in bins[b]:
                    sequence, first = examples[chosen[member]]
                    ids += sequence.tolist()
                    types += [0] * first + [1] * (len(sequence) - first)
                    positions += range(len(sequence))
                    ends.append(len(ids))
                padding = tokens - len(ids)
                assert batch.input_ids.tolist() == ids + [pad] * padding
                assert batch.token_type_ids.tolist() == types + [0] * padding
                assert batch.position_ids.tolist() == positions + [0] * padding
                assert batch.cu_seqlens.tolist() == ends + [len(ids)] * (max_sequences + 1 - len(ends))
                assert (batch.tokens, batch.sequences) == (len(ids), len(bins[b]))
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize(("longest", "tokens"), [(128, 1024), (128, 4096), (512, 4096)])
def test_fill_is_97_percent_with_the_defaults_on_lengths_as_prepare_makes_them(longest: int, tokens: int) -> None:
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random(20_000) < 0.9, longest, rng.integers(5, longest + 1, 20_000))
    window, most = default_window(tokens, lengths.mean()), default_max_sequences(tokens, lengths.mean())
    windows = [lengths[i : i + window] for i in range(0, len(lengths) - window + 1, window)]
    bins = [len(pack_window(part, tokens=tokens, max_sequences=most)[1]) - 1 for part in windows]
    fill = sum(part.sum() for part in windows) / (tokens * sum(bins))
    assert fill >= 0.97


def test_fill_is_97_percent_on_short_and_widely_spread_lengths() -> None:
    rng = np.random.default_rng(1)
    for lengths in (rng.integers(5, 129, 20_000), np.clip(rng.lognormal(3.2, 0.7, 20_000), 5, 128).astype(int)):
        window, most = default_window(1024, lengths.mean()), default_max_sequences(1024, lengths.mean())
        _, begins = pack_window(lengths[:window], tokens=1024, max_sequences=most)
        assert lengths[:window].sum() / (1024 * (len(begins) - 1)) >= 0.97
