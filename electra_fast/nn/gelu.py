"""The exact GELU, with the bias of the linear layer before it."""

from __future__ import annotations

from torch import Tensor, nn

from electra_fast import ops


class GELU(nn.GELU):
    """`torch.nn.GELU` in its default, exact form: ``z = x + bias; z/2 · (1 + erf(z/√2))``."""

    def __init__(self, approximate: str = "none") -> None:
        if approximate != "none":
            raise ValueError(
                f"GELU: approximate must be 'none' (the exact form), got {approximate!r}; use torch.nn.GELU for others"
            )
        super().__init__(approximate)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x [..., N]``, ``bias [N]``; see `electra_fast.ops.gelu`."""
        return ops.gelu(x, bias)
