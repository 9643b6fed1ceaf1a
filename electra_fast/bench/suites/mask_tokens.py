"""Choosing the tokens to predict: a fixed share of every sequence, static shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.bench.case import Case
from electra_fast.bench.peers.masking import choose_masked

from .op import Function, contender

SPECIAL, MASK, PROBABILITY = (0, 101, 102, 103), 103, 0.15


def _collator(dropout: float) -> Function:
    """As a collator does it on the padded batch: scores, topk, scatter."""
    special = torch.tensor(SPECIAL)

    def run(ids: Tensor) -> tuple[Tensor, Tensor]:
        return choose_masked(ids, special.to(ids.device), PROBABILITY, MASK)

    return run


def _ours(dropout: float) -> Function:
    special = torch.tensor(SPECIAL)

    def run(ids: Tensor) -> tuple[Tensor, Tensor]:
        count, length = ids.shape
        cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=ids.device) * length
        slots = ops.max_predictions_bound(ids.numel(), count, PROBABILITY)
        options = {"mask_id": MASK, "probability": PROBABILITY, "max_predictions": slots}
        state = rng.make(1, 0, ids.device)
        drawn = ops.mask_tokens(ids.flatten(), cu_seqlens, special.to(ids.device), **options, rng=state)
        return drawn.input_ids.view_as(ids), drawn.positions[drawn.targets != -100].view(count, -1)

    return run


def _counts(result: tuple[Tensor, Tensor], inputs: tuple) -> list[Tensor]:
    """The draws differ: what must agree is how many tokens of each sequence are chosen."""
    masked, positions = result
    chosen = torch.full((len(masked),), positions.shape[1])
    return [chosen.float()]


def _inputs(count: int, length: int, device: str) -> tuple[Tensor]:
    ids = torch.randint(1000, 30522, (count, length), device=device)
    ids[:, 0], ids[:, -1] = 101, 102
    return (ids,)


def cases(device: str) -> list[Case]:
    """The batches of small and base."""
    found = []
    for count, length, level in ((128, 128, "quick"), (16, 128, "full"), (64, 512, "default")):
        found.append(
            Case(
                suite="mask_tokens",
                name=f"{count}x{length}",
                dtype="int64",
                contenders=(
                    contender("torch", _collator, setting="rand, isin, topk, scatter"),
                    contender("electra-fast", _ours, setting="native", ours=True),
                ),
                inputs=lambda shared, c=count, n=length: _inputs(c, n, device),
                device=device,
                shape={"batch": count, "length": length, "tokens": count * length},
                bytes=16.0 * count * length,  # ids read and written
                tokens=count * length,
                select=_counts,
                level=level,
            )
        )
    return found
