"""Calls of adam whose kernel is compiled ahead of time."""

import torch

from electra_fast.triton import adam


def _call(dtype: torch.dtype) -> None:
    p = torch.empty(1024, 4096, dtype=dtype, device="meta")
    m, scalar = torch.empty(1024, 4096, device="meta"), torch.empty((), device="meta")
    adam.forward([p], [p], [m], [m], [0.01], scalar, scalar, 0.9, 0.999, 1e-6)


CALLS = {"float32": lambda: _call(torch.float32), "bfloat16 beside float32": lambda: _call(torch.bfloat16)}
