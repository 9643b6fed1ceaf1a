"""replace_tokens against a loop over the slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops

OP = "replace_tokens"


def by_a_loop(ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[list[int], list[bool]]:
    """Floor of the mean where several used slots share a position."""
    out = ids.tolist()
    samples: dict[int, list[int]] = {}
    for position, target, sample in zip(positions.tolist(), targets.tolist(), sampled.tolist(), strict=True):
        if target != -100:
            samples.setdefault(position, []).append(sample)
    for position, drawn in samples.items():
        out[position] = sum(drawn) // len(drawn)
    return out, [a != b for a, b in zip(out, ids.tolist(), strict=True)]


def make(tokens: int, slots: int, used: int, repeat: bool, ordered: bool = False):
    ids = torch.randint(100, (tokens,))
    where = torch.randint(tokens, (used,)) if repeat else torch.randperm(tokens)[:used]
    if ordered:
        where = where.sort().values
    positions = torch.zeros(slots, dtype=torch.int64)
    targets = torch.full((slots,), -100)
    positions[:used], targets[:used] = where, ids[where]
    sampled = torch.randint(100, (slots,))
    sampled[: used // 3] = targets[: used // 3]  # the generator is right in a third of them
    return ids, positions, targets, sampled


@pytest.mark.parametrize("ordered", [False, True], ids=["anyhow", "ordered"])
@pytest.mark.parametrize("repeat", [False, True], ids=["distinct", "repeated"])
@pytest.mark.parametrize(
    ("tokens", "slots", "used"), [(50, 20, 12), (7, 7, 7), (30, 5, 0), (9, 0, 0), (5000, 900, 800)]
)
def test_matches_the_loop(backend, tokens, slots, used, repeat, ordered) -> None:
    arguments = make(tokens, slots, used, repeat, ordered)
    before = [x.clone() for x in arguments]
    corrupted, labels = ops.replace_tokens(*arguments)
    expected, expected_labels = by_a_loop(*arguments)
    assert corrupted.tolist() == expected
    assert labels.dtype == torch.bool
    assert labels.tolist() == expected_labels
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


def test_a_correct_sample_is_an_original(backend) -> None:
    ids = torch.tensor([5, 6, 7])
    corrupted, labels = ops.replace_tokens(ids, torch.tensor([1, 2]), torch.tensor([6, 7]), torch.tensor([6, 9]))
    assert corrupted.tolist() == [5, 6, 9]
    assert labels.tolist() == [False, False, True]


def test_shared_positions_get_the_floor_of_the_mean(backend) -> None:
    """30522 + 30521 + 2 over three is 20348.33; the unused slot at position 0 writes nothing."""
    ids = torch.tensor([1, 2, 3])
    targets = torch.tensor([3, -100, 3, 3])
    corrupted, labels = ops.replace_tokens(ids, torch.tensor([2, 0, 2, 2]), targets, torch.tensor([30522, 9, 30521, 2]))
    assert corrupted.tolist() == [1, 2, 20348]
    assert labels.tolist() == [False, False, True]


def test_empty(backend) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    unused = torch.zeros(3, dtype=torch.int64), torch.full((3,), -100), torch.zeros(3, dtype=torch.int64)
    for slots in ((nothing, nothing, nothing), unused):
        corrupted, labels = ops.replace_tokens(nothing, *slots)
        assert corrupted.shape == labels.shape == (0,)


def test_non_contiguous(backend) -> None:
    ids, positions, targets, sampled = make(40, 12, 9, True)
    strided = [torch.stack([x, x], 1)[:, 0] for x in (ids, positions, targets, sampled)]
    for a, b in zip(ops.replace_tokens(*strided), ops.replace_tokens(ids, positions, targets, sampled), strict=True):
        assert torch.equal(a, b)


def test_opcheck(native_op) -> None:
    torch.library.opcheck(native_op, make(20, 8, 5, True))


def test_compiles(backend) -> None:
    arguments = make(20, 8, 5, True)
    compiled = torch.compile(ops.replace_tokens, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(*arguments), ops.replace_tokens(*arguments), strict=True):
        assert torch.equal(a, b)


def test_deterministic(backend, assert_deterministic) -> None:
    arguments = make(300, 200, 200, True)
    assert_deterministic(lambda: ops.replace_tokens(*arguments))


@pytest.mark.parametrize("position", [-1, 5])
@pytest.mark.reads_values
def test_position_outside(backend, position) -> None:
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"replace_tokens.*positions"):
        ops.replace_tokens(torch.arange(5), torch.tensor([position]), one, one)


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, torch.ones(2, 2).long(), ValueError, r"replace_tokens: input_ids must have shape \[\*\], got \[2, 2\]"),
        (1, torch.ones(3).int(), TypeError, "replace_tokens: positions must be int64, got int32"),
        (2, torch.ones(4).long(), ValueError, r"replace_tokens: targets must have shape \[3\], got \[4\]"),
        (3, torch.ones(3), TypeError, "replace_tokens: sampled must be int64, got float32"),
    ],
)
def test_errors(index, value, error, message) -> None:
    arguments = [torch.zeros(3, dtype=torch.int64) for _ in range(4)]
    arguments[index] = value
    with pytest.raises(error, match=message):
        ops.replace_tokens(*arguments)
