"""The CUDA kernels of replace_tokens in the emulator, through their torch boundary, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import reference


@pytest.fixture(scope="module")
def replace_tokens(emulator):
    return emulator.load("replace_tokens").replace_tokens


def make(tokens: int, slots: int, used: int, repeat: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    ids = torch.randint(100, (tokens,))
    where = torch.randint(tokens, (used,)) if repeat else torch.randperm(tokens)[:used]
    positions, targets = torch.zeros(slots, dtype=torch.int64), torch.full((slots,), -100)
    order = torch.randperm(slots)[:used]
    positions[order], targets[order] = where, ids[where]
    return ids, positions, targets, torch.where(torch.rand(slots) < 0.3, targets, torch.randint(100, (slots,)))


def assert_equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("repeat", [False, True], ids=["distinct", "repeated"])
@pytest.mark.parametrize(
    ("tokens", "slots", "used"), [(50, 20, 12), (7, 7, 7), (30, 5, 0), (9, 0, 0), (1, 1, 1), (1000, 700, 600)]
)
def test_equals_the_reference(replace_tokens, tokens, slots, used, repeat) -> None:
    arguments = make(tokens, slots, used, repeat)
    before = [x.clone() for x in arguments]
    assert_equal(replace_tokens(*arguments), reference.replace_tokens(*arguments))
    assert_equal(arguments, tuple(before))


def test_floor_of_the_mean(replace_tokens) -> None:
    """30522 + 30521 + 2 over three is 20348.33, -3 over two is -1.5; the unused slot writes nothing."""
    ids = torch.tensor([1, 2, 3, 4])
    positions, targets = torch.tensor([2, 0, 2, 3, 2, 3]), torch.tensor([3, -100, 3, 4, 3, 4])
    corrupted, labels = replace_tokens(ids, positions, targets, torch.tensor([30522, 9, 30521, -1, 2, -2]))
    assert corrupted.tolist() == [1, 2, 20348, -2]
    assert labels.tolist() == [False, False, True, True]


def test_any_order_of_threads(replace_tokens, emulator) -> None:
    arguments = make(300, 800, 700, True)
    emulator.same_under_every_schedule(lambda: replace_tokens(*arguments), random_runs=2)


def test_empty(replace_tokens) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    unused = torch.zeros(3, dtype=torch.int64), torch.full((3,), -100), torch.zeros(3, dtype=torch.int64)
    for slots in ((nothing, nothing, nothing), unused):
        corrupted, labels = replace_tokens(nothing, *slots)
        assert corrupted.shape == labels.shape == (0,)


def test_strides(replace_tokens) -> None:
    arguments = make(40, 12, 9, True)
    strided = [torch.stack([x, x], 1)[:, 0] for x in arguments]
    assert_equal(replace_tokens(*strided), reference.replace_tokens(*arguments))


@pytest.mark.parametrize("position", [-1, 5, 2**40])
def test_a_position_outside_writes_nothing(replace_tokens, position) -> None:
    """The host cannot look; the emulator would see a write outside."""
    ids, one = torch.arange(5), torch.tensor([1])
    corrupted, labels = replace_tokens(ids, torch.tensor([position]), one, one)
    assert torch.equal(corrupted, ids)
    assert not labels.any()


@pytest.mark.parametrize(
    ("index", "shape", "dtype", "message"),
    [
        (0, (2, 2), torch.int64, r"replace_tokens: input_ids must be int64 of shape \[T\], got \[2, 2\]"),
        (1, (3, 1), torch.int64, r"replace_tokens: positions must have shape \[P\], got \[3, 1\]"),
        (1, (3,), torch.int32, r"replace_tokens: positions must be int64 of shape \[3\]"),
        (2, (4,), torch.int64, r"replace_tokens: targets must be int64 of shape \[3\], got \[4\]"),
        (3, (3,), torch.float32, r"replace_tokens: sampled must be int64 of shape \[3\]"),
    ],
)
def test_errors(replace_tokens, index, shape, dtype, message) -> None:
    arguments = [torch.zeros(3, dtype=torch.int64) for _ in range(4)]
    arguments[index] = torch.zeros(shape, dtype=dtype)
    with pytest.raises(RuntimeError, match=message):
        replace_tokens(*arguments)
