"""Word, position and segment embeddings, layer norm and dropout; backward scatters into the table, in a fixed order."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.bench.case import Case

from .op import BYTES, DTYPES, TOLERANCE, Function, compiled, contender, ours

VOCABULARY, POSITIONS, LENGTH, EPS = 30522, 512, 128, 1e-12


def _torch(dropout: float) -> Function:
    def run(ids, positions, types, word, position, token_type, weight, bias) -> Tensor:  # type: ignore[no-untyped-def]
        summed = F.embedding(ids, word) + F.embedding(positions, position) + F.embedding(types, token_type)
        return F.dropout(F.layer_norm(summed, weight.shape, weight, bias, EPS), dropout)

    return run


def _ours(dropout: float, device: str) -> Function:
    state = rng.make(1, device=device) if dropout else None

    def run(*inputs: Tensor) -> Tensor:
        return ops.embedding(*inputs, eps=EPS, dropout_p=dropout, rng=state)

    return run


def _inputs(tokens: int, width: int, dtype: torch.dtype, device: str, backward: bool) -> tuple[Tensor, ...]:
    ids = torch.randint(VOCABULARY, (tokens,), device=device)
    positions = torch.arange(tokens, device=device) % LENGTH
    types = torch.zeros_like(ids)
    shapes = ((VOCABULARY, width), (POSITIONS, width), (2, width), (width,), (width,))
    tables = [torch.randn(shape, device=device, dtype=dtype) for shape in shapes]
    if not backward:
        return ids, positions, types, *tables
    gradient = torch.randn(tokens, width, device=device, dtype=dtype)
    return ids, positions, types, *(x.requires_grad_() for x in tables), gradient


def cases(device: str) -> list[Case]:
    """The embedding widths of small and base."""
    tokens = 32768 if device.startswith("cuda") else 4096
    found = []
    for width, dtype, backward in itertools.product((128, 768), DTYPES, (True, False)):
        dropout = 0.1 if backward else 0.0
        options = {"dropout": dropout, "backward": backward}
        direction = "forward+backward" if backward else "forward"
        # Rows read and written, forward; the gradient read, rows read once more, and the tables' gradients written.
        moved = 2 * tokens * width + (2 * tokens * width + VOCABULARY * width if backward else 0)
        found.append(
            Case(
                suite="embedding",
                name=f"{tokens}x{width} dropout={dropout} {dtype} {direction}",
                dtype=dtype,
                contenders=(
                    contender("torch", _torch, setting="three embeddings, adds, F.layer_norm, dropout", **options),
                    *ours(lambda rate: _ours(rate, device), device=device, **options),
                    compiled("torch.compile", _torch, **options),
                ),
                inputs=lambda shared, w=width, d=dtype, b=backward: _inputs(tokens, w, DTYPES[d], device, b),
                device=device,
                shape={"tokens": tokens, "columns": width, "dropout": dropout, "direction": direction},
                bytes=float(BYTES[dtype]) * moved,
                tokens=tokens,
                tolerance=TOLERANCE[dtype],
                level=("quick" if width == 128 else "default") if dtype == "float32" and backward else "full",
            )
        )
    return found
