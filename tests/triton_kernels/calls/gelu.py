"""Calls of gelu whose kernels are compiled ahead of time: the hidden layer of ELECTRA's feed-forward blocks."""

import torch

from electra_fast.triton import gelu

ROWS = 65536


def _call(width: int, dtype: torch.dtype, bias_dtype: torch.dtype | None) -> None:
    x = torch.empty(ROWS, width, dtype=dtype, device="meta")
    bias = None if bias_dtype is None else torch.empty(width, dtype=bias_dtype, device="meta")
    gelu.forward(x, bias)
    gelu.backward(x, x, bias)


CALLS = {
    "bfloat16": lambda: _call(3072, torch.bfloat16, torch.float32),
    "float32": lambda: _call(1024, torch.float32, torch.float32),
    "float16, no bias": lambda: _call(4096, torch.float16, None),
}
