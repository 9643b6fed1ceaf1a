"""Philox4x32 counter-based random numbers in plain tensor arithmetic, and the masks drawn from them.

Every draw is a pure function of where it is made: key = seed, counter = (block, row, site, step). The layout of rows
and blocks is the table of docs/design.md. All numbers are unsigned 32-bit values held in int64 tensors.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 7
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of ``constant * x``, by 16-bit halves of the constant so that int64 never overflows."""
    upper, lower = x * (constant >> 16), x * (constant & 0xFFFF)
    upper = upper + (lower >> 16)
    return upper >> 16, ((upper & 0xFFFF) << 16) | (lower & 0xFFFF)


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter; the tensors broadcast against each other."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for i in range(rounds):
        if i > 0:
            k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def random_words(block: Tensor, row: Tensor | int, rng: Tensor, site: int) -> Tensor:
    """Words of the calls at (block, row), their broadcast shape + [4]; ``rng`` int64 ``[2]`` = (seed, step)."""
    seed, step = rng[0], rng[1]
    if not isinstance(row, Tensor):  # filled on the device: a copy from the host could not be recorded in a CUDA graph
        row = torch.full((), row, dtype=torch.int64, device=block.device)
    place = torch.full((), site & _WORD, dtype=torch.int64, device=block.device)
    counter = (block & _WORD, row & _WORD, place, step & _WORD)
    words = philox4x32(counter, (seed & _WORD, (seed >> 32) & _WORD))
    return torch.stack(torch.broadcast_tensors(*words), dim=-1)


def word_at(index: Tensor, row: Tensor | int, rng: Tensor, site: int, first_block: int = 0) -> Tensor:
    """Word ``index % 4`` of block ``first_block + index // 4``."""
    words = random_words(first_block + index // 4, row, rng, site)
    index = index.expand(words.shape[:-1])
    return words.gather(-1, (index % 4).unsqueeze(-1)).squeeze(-1)


def keep_threshold(p: float) -> int:
    """Bytes below this are kept: ``(1-p)·256`` rounded half to even, at least 1."""
    return min(256, max(1, round((1.0 - p) * 256)))


def keep_scale(p: float) -> float:
    """``256/threshold``: what is kept is scaled by it, so that the expectation is exact for the quantised p."""
    return 256.0 / keep_threshold(p)


def keep_mask(row: Tensor, columns: int, p: float, rng: Tensor, site: int) -> Tensor:
    """True where dropout keeps, ``row.shape + [columns]``: byte ``column % 16`` of the call (``column // 16``, row)."""
    blocks = torch.arange((columns + 15) // 16, device=row.device)
    words = random_words(blocks, row.unsqueeze(-1), rng, site)
    shifts = torch.arange(0, 32, 8, device=row.device)
    bytes_ = (words.unsqueeze(-1) >> shifts) & 255
    return bytes_.flatten(-3)[..., :columns] < keep_threshold(p)


def dropout_mask(rows: int, columns: int, p: float, rng: Tensor, site: int) -> Tensor:
    """Kept elements of an activation seen as ``[rows, columns]``."""
    return keep_mask(torch.arange(rows, device=rng.device), columns, p, rng, site)


def attention_dropout_mask(query: Tensor, heads: int, keys: int, p: float, rng: Tensor, site: int) -> Tensor:
    """Kept probabilities, ``query.shape + [heads, keys]``: queries by packed index, keys by index in their sequence."""
    head = torch.arange(heads, device=query.device)
    return keep_mask(query.unsqueeze(-1) * heads + head, keys, p, rng, site)
