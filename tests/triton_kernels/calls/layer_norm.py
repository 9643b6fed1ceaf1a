"""Calls of layer_norm whose kernels are compiled ahead of time: ELECTRA's three sizes."""

import torch

from electra_fast.triton import layer_norm

ROWS = 65536


def _call(width: int, dtype: torch.dtype, dropout_p: float = 0.1, parts: bool = True) -> None:
    x = torch.empty(ROWS, width, dtype=dtype, device="meta")
    vector = torch.empty(width, device="meta")
    rng = torch.empty(2, dtype=torch.int64, device="meta")
    x_bias, residual = (vector, x) if parts else (None, None)
    _, total, mean, rstd = layer_norm.forward(x, x_bias, residual, vector, vector, 1e-12, dropout_p, rng, 3)
    layer_norm.backward(x, total if total.numel() else x, mean, rstd, vector, vector, x_bias, dropout_p, rng, 3)


CALLS = {
    "256 bfloat16": lambda: _call(256, torch.bfloat16),
    "768 bfloat16": lambda: _call(768, torch.bfloat16),
    "1024 bfloat16": lambda: _call(1024, torch.bfloat16),
    "1024 float32": lambda: _call(1024, torch.float32),
    "768 bfloat16, no dropout": lambda: _call(768, torch.bfloat16, 0.0),
    "128 float32, plain": lambda: _call(128, torch.float32, 0.0, parts=False),
}
