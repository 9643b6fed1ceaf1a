"""Rows cut into equal blocks."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from electra_fast.triton.columns import MOST_PARTS, WIDEST, split


@pytest.mark.parametrize(
    ("columns", "cover"),
    [
        (256, (1, 256)), (768, (3, 256)), (1024, (4, 256)), (128, (1, 128)), (5, (1, 64)), (129, (3, 64)),
        (1000, (4, 256)), (2048, (8, 256)), (4096, (8, 512)), (640, (5, 128)),
    ],
)  # fmt: skip
def test_split(columns, cover) -> None:
    assert split(columns) == cover


def test_split_covers_everything() -> None:
    for columns in [*range(1, 3000), WIDEST]:
        parts, block = split(columns)
        assert parts <= MOST_PARTS
        assert parts * block >= columns > (parts - 1) * block
        assert block & (block - 1) == 0


def test_too_wide() -> None:
    with pytest.raises(ValueError, match=f"at most {WIDEST} columns, got {WIDEST + 1}"):
        split(WIDEST + 1)
