"""The Triton kernels of replace_tokens against the reference, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, reference


def make(tokens: int, slots: int, used: int, repeat: bool) -> list[Tensor]:
    ids = torch.randint(100, (tokens,))
    where = torch.randint(max(tokens, 1), (used,)) if repeat else torch.randperm(tokens)[:used]
    positions, targets = torch.zeros(slots, dtype=torch.int64), torch.full((slots,), -100)
    positions[:used], targets[:used] = where, ids[where]
    sampled = torch.randint(100, (slots,))
    sampled[: used // 3] = targets[: used // 3]  # the generator is right in a third of them
    return [ids, positions, targets, sampled]


def check(arguments: list[Tensor], device: str) -> tuple[Tensor, Tensor]:
    expected = reference.replace_tokens(*arguments)
    actual = ops.replace_tokens(*(x.to(device) for x in arguments))
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b)
    return actual


@pytest.mark.parametrize("repeat", [False, True], ids=["distinct", "repeated"])
@pytest.mark.parametrize(
    ("tokens", "slots", "used"), [(50, 20, 12), (7, 7, 7), (30, 5, 0), (9, 0, 0), (0, 0, 0), (1500, 700, 600)]
)
def test_matches_reference(tokens, slots, used, repeat, device, triton_backend) -> None:
    check(make(tokens, slots, used, repeat), device)


def test_shared_positions_get_the_floor_of_the_mean(device, triton_backend) -> None:
    """30522 + 30521 + 2 over three is 20348.33; the floor of -3/2 is -2; an unused slot writes nothing."""
    positions, targets = torch.tensor([2, 1, 2, 0, 2, 1]), torch.tensor([5, 5, 5, -100, 5, 5])
    sampled = torch.tensor([30522, -1, 30521, 9, 2, -2])
    corrupted, labels = check([torch.tensor([7, 7, 7, 7]), positions, targets, sampled], device)
    assert corrupted.tolist() == [7, -2, 20348, 7]
    assert labels.tolist() == [False, True, True, False]


def test_strides(device, triton_backend) -> None:
    arguments = make(40, 16, 10, True)
    check([torch.stack([x, x + 1], 1)[:, 0] for x in arguments], device)
