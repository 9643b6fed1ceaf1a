"""The (seed, step) tensor."""

from __future__ import annotations

import pytest
import torch

from electra_fast import rng


@pytest.mark.parametrize(("seed", "stored"), [(5, 5), (-1, -1), (2**64 - 1, -1), (2**63, -(2**63)), (2**64 + 3, 3)])
def test_make_keeps_the_low_64_bits(seed: int, stored: int) -> None:
    state = rng.make(seed, 9)
    assert state.dtype == torch.int64
    assert state.tolist() == [stored, 9]


def test_fresh_follows_the_default_generator() -> None:
    torch.manual_seed(3)
    first, second = rng.fresh(), rng.fresh()
    torch.manual_seed(3)
    assert torch.equal(rng.fresh(), first)
    assert first[1] == 0
    assert first[0] != second[0]


def test_advance_in_place() -> None:
    state = rng.make(1, 2)
    assert rng.advance_(state) is state
    rng.advance_(state, 4)
    assert state.tolist() == [1, 7]
