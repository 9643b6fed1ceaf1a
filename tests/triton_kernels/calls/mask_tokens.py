"""Calls of mask_tokens whose kernels are compiled ahead of time."""

import torch

from electra_fast.triton import mask_tokens


def _call(with_replacement: bool) -> None:
    ids, special = (torch.empty(n, dtype=torch.int64, device="meta") for n in (65536, 5))
    cu_seqlens = torch.empty(513, dtype=torch.int32, device="meta")
    rng = torch.empty(2, dtype=torch.int64, device="meta")
    mask_tokens.forward(ids, cu_seqlens, special, 103, 0.15, 10368, -1, 0.85, with_replacement, rng, 3)


CALLS = {"any": lambda: _call(False), "with replacement": lambda: _call(True)}
