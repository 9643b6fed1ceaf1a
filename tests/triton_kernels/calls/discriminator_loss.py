"""Calls of discriminator_loss whose kernels are compiled ahead of time: ELECTRA's three sizes."""

import torch

from electra_fast.triton import discriminator_loss

ROWS = 65536


def _call(width: int, dtype: torch.dtype, masked: bool = True) -> None:
    hidden = torch.empty(ROWS, width, dtype=dtype, device="meta")
    weight, bias = torch.empty(1, width, device="meta"), torch.empty(1, device="meta")
    labels = torch.empty(ROWS, dtype=torch.bool, device="meta")
    mask = labels if masked else None
    loss, logits = discriminator_loss.forward(hidden, weight, bias, labels, mask)
    discriminator_loss.backward(loss, hidden, weight, bias, labels, mask, logits)


CALLS = {
    "256 bfloat16": lambda: _call(256, torch.bfloat16),
    "768 bfloat16": lambda: _call(768, torch.bfloat16),
    "1024 float32, no mask": lambda: _call(1024, torch.float32, False),
}
