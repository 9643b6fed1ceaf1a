"""Calls of generator_head whose kernels are compiled ahead of time: ELECTRA's widths, a step of 16384 tokens."""

import torch

from electra_fast.triton import generator_head

SLOTS, COLUMNS = 2585, 30522


def _call(
    width: int,
    dtype: torch.dtype,
    parameters: torch.dtype | None = None,
    temperature: float = 1.0,
    disallow_correct: bool = False,
) -> None:
    hidden = torch.empty(SLOTS, width, dtype=dtype, device="meta")
    weight = torch.empty(COLUMNS, width, dtype=parameters or dtype, device="meta")
    bias = torch.empty(COLUMNS, device="meta")
    targets, rng = (torch.empty(n, dtype=torch.int64, device="meta") for n in (SLOTS, 2))
    inputs = (hidden, weight, bias, targets)
    loss, _, _, lse = generator_head.forward(*inputs, temperature, disallow_correct, rng, 3)
    generator_head.backward(loss, *inputs, lse)


CALLS = {
    "128 bfloat16": lambda: _call(128, torch.bfloat16),
    "128 bfloat16, weight float32": lambda: _call(128, torch.bfloat16, torch.float32),
    "128 float16, other sampling": lambda: _call(128, torch.float16, None, 0.7, True),
    "128 float32": lambda: _call(128, torch.float32),
    "768 bfloat16": lambda: _call(768, torch.bfloat16),
    "768 bfloat16, weight float32": lambda: _call(768, torch.bfloat16, torch.float32),
    "768 float16, other sampling": lambda: _call(768, torch.float16, None, 0.7, True),
    "1024 bfloat16": lambda: _call(1024, torch.bfloat16),
    "1024 float32, other sampling": lambda: _call(1024, torch.float32, None, 0.7, True),
}
