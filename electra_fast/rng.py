"""Random state of a step: an int64 tensor ``[2]`` = (seed, step) on the device, read by kernels, never by the host."""

from __future__ import annotations

import torch
from torch import Tensor


def make(seed: int, step: int = 0, device: str | torch.device = "cpu") -> Tensor:
    """State of a given seed (any int; its low 64 bits count) and step."""
    seed &= 2**64 - 1
    return torch.tensor([seed - 2**64 if seed >= 2**63 else seed, step], dtype=torch.int64, device=device)


def fresh(device: str | torch.device = "cpu") -> Tensor:
    """State of a seed drawn from torch's default generator, so that it follows ``torch.manual_seed``; step 0."""
    seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=device)
    return torch.cat([seed, torch.zeros_like(seed)])


def advance_(rng: Tensor, steps: int = 1) -> Tensor:
    """Move to a later step, in place: every draw of it is independent of the one before."""
    rng[1] += steps
    return rng
