"""What every launcher needs: the tensors' device made current, and the arithmetic of grids."""

from __future__ import annotations

import contextlib

import torch

_HERE = contextlib.nullcontext()


def on(device: torch.device) -> contextlib.AbstractContextManager:
    """Make ``device`` current while kernels are launched: Triton launches on the current device, not the tensors'."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)


def divide_up(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least ``n`` and ``least``: the size of a block that holds n things."""
    return max(least, 1 << max(n - 1, 0).bit_length())
