"""What the iterator promises: every example once an epoch, an order no thread changes, exact resumption, ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from electra_fast.data.batches import PackedBatch, PackedBatches
from electra_fast.data.manifest import open_corpus

OPTIONS = {"tokens": 64, "max_sequences": 6, "window": 40, "pad_id": 0}


def same(a: PackedBatch, b: PackedBatch) -> bool:
    tensors = ("input_ids", "token_type_ids", "position_ids", "cu_seqlens")
    return (a.tokens, a.sequences) == (b.tokens, b.sequences) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in tensors
    )


def first_ids(batch: PackedBatch) -> list[int]:
    """The first token of each example: in these corpora its name."""
    return batch.input_ids[batch.cu_seqlens[: batch.sequences].long()].tolist()


def test_types_shapes_and_padding(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **OPTIONS)
    assert (batches.tokens, batches.max_sequences, batches.max_seqlen) == (64, 6, 24)
    for _ in range(20):
        batch = next(batches)
        for tensor in (batch.input_ids, batch.token_type_ids, batch.position_ids):
            assert tensor.shape == (64,)
            assert tensor.dtype == torch.int64
            assert not tensor[batch.tokens :].any()
        assert batch.cu_seqlens.shape == (7,)
        assert batch.cu_seqlens.dtype == torch.int32
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[batch.sequences :].eq(batch.tokens).all()
        assert batch.cu_seqlens[: batch.sequences + 1].diff().gt(0).all()


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_token_once_an_epoch(corpus: list[Path], shuffle: bool) -> None:
    epochs = 3
    batches = list(PackedBatches(corpus, **OPTIONS, shuffle=shuffle, epochs=epochs))
    ids = torch.cat([batch.input_ids[: batch.tokens] for batch in batches])
    total = len(ids) // epochs
    expected = torch.arange(100, 100 + total)
    for epoch in ids.split(total):
        assert torch.equal(epoch.sort().values, expected)
    orders = {tuple(epoch.tolist()) for epoch in ids.split(total)}
    assert len(orders) == (epochs if shuffle else 1)


def test_a_corpus_directory_knows_its_shards_and_its_padding(prepared: Path) -> None:
    """Given by path or opened; the validation split is another set of shards."""
    for source in (prepared, str(prepared), open_corpus(prepared)):
        (batch,) = PackedBatches(source, "validation", tokens=32, shuffle=False)
        assert batch.input_ids[: batch.tokens].tolist() == list(range(500, 511))
        assert batch.input_ids[batch.tokens :].eq(3).all()
    train = PackedBatches(prepared, tokens=32, epochs=1, pad_id=0)
    assert sum(batch.tokens for batch in train) == 60


def test_another_seed_is_another_order(corpus: list[Path]) -> None:
    one, other = (next(PackedBatches(corpus, **OPTIONS, seed=seed)) for seed in (0, 2**33))
    assert not same(one, other)


def test_training_has_no_end_and_evaluation_ends_after_one_pass(corpus: list[Path]) -> None:
    training = PackedBatches(corpus, **OPTIONS)
    for _ in range(int(3 * training.batches_per_epoch)):
        next(training)
    assert training.state_dict()["epoch"] >= 2
    evaluation = PackedBatches(corpus, **OPTIONS, shuffle=False)
    examples = [name for batch in evaluation for name in first_ids(batch)]
    assert len(examples) == 330
    with pytest.raises(StopIteration):  # and stays at its end
        next(evaluation)
    evaluation.reset()
    assert [name for batch in evaluation for name in first_ids(batch)] == examples


def test_evaluation_may_be_smaller_than_a_batch(write) -> None:
    (batch,) = PackedBatches([write("v.shard", [5, 3])], tokens=64, pad_id=9, shuffle=False)
    assert (batch.tokens, batch.sequences) == (8, 2)
    assert batch.input_ids[8:].eq(9).all()


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (2, 1), (2, 8), (7, 3), (3, 100)])
def test_threads_and_prefetch_change_nothing(corpus: list[Path], threads: int, prefetch: int) -> None:
    expected = PackedBatches(corpus, **OPTIONS, seed=4, threads=1, prefetch=2)
    batches = PackedBatches(corpus, **OPTIONS, seed=4, threads=threads, prefetch=prefetch)
    for _ in range(250):
        assert same(next(batches), next(expected))


@pytest.mark.parametrize("delivered", [0, 1, 16, 17, 18, 129, 130, 131, 200])
def test_resuming_goes_on_exactly(corpus: list[Path], delivered: int) -> None:
    """Also at the borders of windows (17 batches of 40 examples here, more or less) and of the epoch."""
    batches = PackedBatches(corpus, **OPTIONS, seed=4, threads=3, prefetch=5)
    for _ in range(delivered):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    for threads in (1, 4):
        resumed = PackedBatches(corpus, **OPTIONS, seed=4, threads=threads)
        next(resumed)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        reference = PackedBatches(corpus, **OPTIONS, seed=4)
        for _ in range(delivered):
            next(reference)
        for _ in range(40):
            assert same(next(resumed), next(reference))
            assert resumed.state_dict() == reference.state_dict()


def test_resuming_everywhere_in_an_epoch(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **OPTIONS, epochs=1)
    resumed = PackedBatches(corpus, **OPTIONS, epochs=1, threads=1, prefetch=1)
    states = [batches.state_dict()]
    expected = []
    for batch in batches:
        states.append(batches.state_dict())
        expected.append(batch)
    assert states[-1]["epoch"] == 1
    for state, batch in zip(states, expected, strict=False):
        resumed.load_state_dict(state)
        assert same(next(resumed), batch)
    resumed.load_state_dict(states[-1])
    with pytest.raises(StopIteration):
        next(resumed)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_share_the_stream_and_its_place(corpus: list[Path], world: int) -> None:
    everything = list(PackedBatches(corpus, **OPTIONS, epochs=1))
    ranks = [PackedBatches(corpus, **OPTIONS, epochs=1, rank=rank, world=world) for rank in range(world)]
    steps = len(everything) // world
    for step in range(steps):
        for rank, batches in enumerate(ranks):
            assert same(next(batches), everything[step * world + rank])
        assert all(batches.state_dict() == ranks[0].state_dict() for batches in ranks)
    rest = [batch for batches in ranks for batch in batches]
    assert len(rest) == len(everything) % world
    assert all(same(a, b) for a, b in zip(rest, everything[steps * world :], strict=True))


def test_a_place_saved_by_ranks_goes_on_with_another_number_of_ranks(corpus: list[Path]) -> None:
    everything = PackedBatches(corpus, **OPTIONS)
    two = [PackedBatches(corpus, **OPTIONS, rank=rank, world=2) for rank in range(2)]
    for _ in range(11):
        for batches in two:
            assert same(next(batches), next(everything))
    three = [PackedBatches(corpus, **OPTIONS, rank=rank, world=3) for rank in range(3)]
    for batches in three:
        batches.load_state_dict(two[1].state_dict())
    for _ in range(60):
        for batches in three:
            assert same(next(batches), next(everything))


def test_statistics(corpus: list[Path]) -> None:
    batches = PackedBatches(corpus, **{**OPTIONS, "window": 1000})
    assert batches.statistics()["fill"] == 0
    exact = sum(1 for _ in PackedBatches(corpus, **{**OPTIONS, "window": 1000}, epochs=1))
    assert batches.batches_per_epoch == exact
    seen = [next(batches) for _ in range(exact)]
    statistics = batches.statistics()
    assert statistics["batches"] == exact
    assert statistics["sequences"] == 330
    assert statistics["tokens"] == sum(batch.tokens for batch in seen)
    assert statistics["fill"] == pytest.approx(statistics["tokens"] / (64 * exact))
    assert statistics["wait_seconds"] >= 0
    half = PackedBatches(corpus, **{**OPTIONS, "window": 1000}, rank=1, world=2)
    assert half.batches_per_epoch == exact / 2


def test_batches_per_epoch_is_close_when_extrapolated(write) -> None:
    path = write("t.shard", np.random.default_rng(0).integers(3, 25, 4000))
    batches = PackedBatches([path], tokens=64, pad_id=0, window=500, epochs=1)
    assert batches.batches_per_epoch == pytest.approx(sum(1 for _ in batches), rel=0.05)


def test_batches_outlive_the_reader_and_may_be_written(corpus: list[Path]) -> None:
    with PackedBatches(corpus, **OPTIONS, prefetch=2) as batches:
        kept = [next(batches) for _ in range(30)]
    again = PackedBatches(corpus, **OPTIONS)
    for batch in kept:
        assert same(batch, next(again))
        batch.input_ids.fill_(1)


def test_moving_a_batch(corpus: list[Path]) -> None:
    batch = next(PackedBatches(corpus, **OPTIONS))
    moved = batch.to("meta")
    assert {t.device.type for t in (moved.input_ids, moved.token_type_ids, moved.position_ids, moved.cu_seqlens)} == {
        "meta"
    }
    assert (moved.tokens, moved.sequences) == (batch.tokens, batch.sequences)
    assert same(batch.to("cpu", non_blocking=True), batch)
    if torch.cuda.is_available():
        assert batch.pin_memory().input_ids.is_pinned()
    else:
        with pytest.raises(RuntimeError):
            batch.pin_memory()
