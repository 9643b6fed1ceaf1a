"""Calls of embedding whose kernels are compiled ahead of time: ELECTRA's embedding widths."""

import torch

from electra_fast.triton import embedding

TOKENS = 65536


def _call(width: int, dtype: torch.dtype, out_dtype: torch.dtype, dropout_p: float = 0.1) -> None:
    ids = torch.empty(TOKENS, dtype=torch.int64, device="meta")
    tables = [torch.empty(n, width, dtype=dtype, device="meta") for n in (30522, 512, 2)]
    vector, rng = torch.empty(width, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    inputs = (ids, ids, ids, *tables, vector, vector)
    y, mean, rstd = embedding.forward(*inputs, 1e-12, dropout_p, rng, 3, 0, out_dtype)
    embedding.backward(y, *inputs, mean, rstd, dropout_p, rng, 3, 0)


CALLS = {
    "128 float32 to bfloat16": lambda: _call(128, torch.float32, torch.bfloat16),
    "768 float32 to bfloat16": lambda: _call(768, torch.float32, torch.bfloat16),
    "1024 bfloat16": lambda: _call(1024, torch.bfloat16, torch.bfloat16),
    "1024 float32, no dropout": lambda: _call(1024, torch.float32, torch.float32, 0.0),
}
