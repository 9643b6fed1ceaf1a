"""replace_tokens: the generator's samples written into the text, and the labels of what changed.

Several slots may share a position (masking with replacement), and the new id is then the floor of the mean of their
samples. Sums and counts are added up by integer atomics, whose result does not depend on their order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch, on


@triton.jit(do_not_specialize=["tokens", "slots"])
def collect_kernel(positions, targets, sampled, sums, tokens, slots, BLOCK_N: tl.constexpr):
    """Program i: slots ``i·BLOCK_N …``. A used slot adds its sample to ``sums[0, position]`` and 1 to ``sums[1]``."""
    slot = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = slot < slots
    position = tl.load(positions + slot, mask=inside, other=0)
    target = tl.load(targets + slot, mask=inside, other=-100)
    sample = tl.load(sampled + slot, mask=inside, other=0)
    used = (target != -100) & (position >= 0) & (position < tokens)
    tl.atomic_add(sums + position, sample, mask=used, sem="relaxed")
    tl.atomic_add(sums + tokens + position, tl.full((BLOCK_N,), 1, tl.int64), mask=used, sem="relaxed")


@triton.jit(do_not_specialize=["tokens"])
def write_kernel(input_ids, sums, corrupted, labels, tokens, BLOCK_N: tl.constexpr):
    """Program i: tokens ``i·BLOCK_N …``."""
    token = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = token < tokens
    original = tl.load(input_ids + token, mask=inside, other=0)
    total = tl.load(sums + token, mask=inside, other=0)
    count = tl.load(sums + tokens + token, mask=inside, other=0)
    divisor = tl.where(count > 0, count, 1)
    mean = total // divisor - (total % divisor < 0).to(tl.int64)  # Triton's division rounds towards zero
    new = tl.where(count > 0, mean, original)
    tl.store(corrupted + token, new, mask=inside)
    tl.store(labels + token, new != original, mask=inside)


def forward(input_ids: Tensor, positions: Tensor, targets: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    """Corrupted ids ``[T]`` and labels ``[T]``."""
    input_ids, positions, targets, sampled = (x.contiguous() for x in (input_ids, positions, targets, sampled))
    tokens, slots = input_ids.shape[0], positions.shape[0]
    corrupted, labels = torch.empty_like(input_ids), torch.empty(tokens, dtype=torch.bool, device=input_ids.device)
    if tokens == 0:
        return corrupted, labels
    sums = torch.zeros((2, tokens), dtype=torch.int64, device=input_ids.device)
    c = configuration("integers", input_ids.device)
    with on(input_ids.device):
        if slots:
            grid = (divide_up(slots, c.block_n),)
            launch(collect_kernel, c, grid, (positions, targets, sampled, sums), (tokens, slots), (c.block_n,))
        grid = (divide_up(tokens, c.block_n),)
        launch(write_kernel, c, grid, (input_ids, sums, corrupted, labels), (tokens,), (c.block_n,))
    return corrupted, labels
