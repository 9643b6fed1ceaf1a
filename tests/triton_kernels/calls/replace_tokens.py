"""The call of replace_tokens whose kernels are compiled ahead of time."""

import torch

from electra_fast.triton import replace_tokens

IDS = torch.empty(65536, dtype=torch.int64, device="meta")
SLOTS = torch.empty(9984, dtype=torch.int64, device="meta")
CALLS = {"any": lambda: replace_tokens.forward(IDS, SLOTS, SLOTS, SLOTS)}
