"""Calls of attention whose kernels are compiled ahead of time: ELECTRA's heads of 64, and the widths beside them."""

import torch

from electra_fast.triton import attention

TOKENS, SEQUENCES = 16384, 128


def _call(heads: int, width: int, dtype: torch.dtype, *, causal: bool = False, dropout_p: float = 0.1) -> None:
    q, k, v = torch.empty(TOKENS, 3, heads, width, dtype=dtype, device="meta").unbind(1)
    cu_seqlens = torch.empty(SEQUENCES + 1, dtype=torch.int32, device="meta")
    rng = torch.empty(2, dtype=torch.int64, device="meta") if dropout_p > 0 else None
    rest = (cu_seqlens, cu_seqlens, 512, 512, 0.125, causal, dropout_p, rng, 3)
    out, lse = attention.forward(q, k, v, *rest)
    attention.backward(out, q, k, v, out, lse, *rest)


CALLS = {
    "64 bfloat16": lambda: _call(12, 64, torch.bfloat16),
    "64 bfloat16, no dropout": lambda: _call(12, 64, torch.bfloat16, dropout_p=0.0),
    "64 float16, causal": lambda: _call(12, 64, torch.float16, causal=True),
    "16 bfloat16, causal, no dropout": lambda: _call(8, 16, torch.bfloat16, causal=True, dropout_p=0.0),
    "32 bfloat16": lambda: _call(8, 32, torch.bfloat16),
    "96 bfloat16": lambda: _call(8, 96, torch.bfloat16),
    "128 bfloat16, causal": lambda: _call(8, 128, torch.bfloat16, causal=True),
    "64 float32": lambda: _call(12, 64, torch.float32),
    "128 float32, causal": lambda: _call(8, 128, torch.float32, causal=True),
}
