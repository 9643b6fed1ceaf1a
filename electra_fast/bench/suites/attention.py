"""Attention with and without dropout, packed sequences of equal and of real lengths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.bench.case import Case
from electra_fast.bench.peers import sdpa

from .lengths import PARAGRAPHS
from .op import DTYPES, TOLERANCE, Function, contender, ours

WIDTH = 64


def _inputs(lengths: Sequence[int], heads: int, dtype: torch.dtype, device: str, backward: bool) -> tuple:
    tokens = sum(lengths)
    made = [torch.randn(tokens, heads, WIDTH, device=device, dtype=dtype) for _ in range(3)]
    if not backward:
        return tuple(made)
    return (*(x.requires_grad_() for x in made), torch.randn(tokens, heads, WIDTH, device=device, dtype=dtype))


def _ours(lengths: Sequence[int], device: str, dropout: float) -> Function:
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
    longest = max(lengths)
    state = rng.make(1, device=device) if dropout else None

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bounds = {"max_seqlen_q": longest, "max_seqlen_k": longest}
        return ops.attention(q, k, v, cu_seqlens, **bounds, dropout_p=dropout, rng=state)

    return run


def _case(name: str, lengths: Sequence[int], heads: int, dtype: str, device: str, **options: Any) -> Case:
    dropout, backward = options["dropout"], options["backward"]
    peers = [
        contender(p.name, lambda rate, p=p: p.build(lengths, device, rate), dropout=dropout, backward=backward,
                  setting=p.setting, level=p.level)
        for p in sdpa.peers(device, dropout)
    ]  # fmt: skip
    own = ours(lambda rate: _ours(lengths, device, rate), device=device, dropout=dropout, backward=backward)
    flops = 4.0 * sum(n * n for n in lengths) * WIDTH * heads
    direction = "forward+backward" if backward else "forward"
    return Case(
        suite="attention",
        name=f"{name} {heads}x{WIDTH} dropout={dropout} {dtype} {direction}",
        dtype=dtype,
        contenders=(peers[0], *own, *peers[1:]),
        inputs=lambda shared: _inputs(lengths, heads, DTYPES[dtype], device, backward),
        device=device,
        shape={"lengths": name, "heads": heads, "width": WIDTH, "dropout": dropout, "direction": direction,
               "tokens": sum(lengths)},
        flops=flops * (3.5 if backward else 1.0),
        tokens=sum(lengths),
        tolerance=TOLERANCE[dtype],
        level=options["level"],
    )  # fmt: skip


def cases(device: str) -> list[Case]:
    """Equal lengths up to 2048, and paragraphs as they come."""
    cuda = device.startswith("cuda")
    heads, total = (12, 32768) if cuda else (4, 4096)
    found = []
    for length, dtype, dropout, backward in itertools.product(
        (128, 512, 256, 1024, 2048), ("bfloat16", "float32"), (0.1, 0.0), (True, False)
    ):
        common = length in (128, 512) and (dropout > 0) == backward
        level = "quick" if common and length == 128 and dtype == "bfloat16" else "default" if common else "full"
        lengths = [length] * (total // length)
        options = {"dropout": dropout, "backward": backward, "level": level}
        found.append(_case(f"S={length}", lengths, heads, dtype, device, **options))
    for dtype in DTYPES:
        options = {"dropout": 0.0, "backward": False, "level": "default"}
        found.append(_case("paragraphs", PARAGRAPHS, heads, dtype, device, **options))
    return found
