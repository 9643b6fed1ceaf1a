"""Packed sequences: which sequence a token belongs to, and the padded view of a packed tensor.

All shapes depend on shapes alone, so that the reference can be traced and captured.
"""

from __future__ import annotations

import torch
from torch import Tensor


def values_readable(tensor: Tensor) -> bool:
    """Whether values may be looked at here: on the CPU and not while tracing (elsewhere it would break the graph)."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_cu_seqlens(op: str, name: str, cu_seqlens: Tensor, total: int) -> None:
    """Raise ValueError unless ``0 = cu[0] <= cu[1] <= ... <= total``."""
    if not values_readable(cu_seqlens):
        return
    values = cu_seqlens.tolist()
    if values[0] != 0 or values[-1] > total or values != sorted(values):
        raise ValueError(f"{op}: {name} must start at 0, never fall and end at or below {total} tokens, got {values}")


def sequence_of(cu_seqlens: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The sequence of each of ``total`` tokens, and whether it is in one (padding: the last sequence, False)."""
    token = torch.arange(total, device=cu_seqlens.device)
    ends = cu_seqlens[1:].long()
    sequence = torch.searchsorted(ends, token, right=True)
    return sequence.clamp(max=max(ends.shape[0] - 1, 0)), token < cu_seqlens[-1]


def padded_index(cu_seqlens: Tensor, length: int, total: int) -> tuple[Tensor, Tensor]:
    """Packed index of place i of each sequence, ``[B, length]``, and whether there is such a place."""
    start, end = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    index = start.unsqueeze(1) + torch.arange(length, device=cu_seqlens.device)
    return index.clamp(max=total - 1), index < end.unsqueeze(1)
