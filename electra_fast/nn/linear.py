"""Linear layers whose bias the following op adds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def project(linear: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``x Wᵀ``, and the bias that is still to be added (None: it has been).

    Anything but a plain `torch.nn.Linear` without hooks (an adapter, a quantised layer) is called as it is.
    """
    plain = type(linear) is nn.Linear and not (linear._forward_hooks or linear._forward_pre_hooks)
    if plain and not (linear._backward_hooks or linear._backward_pre_hooks):
        return F.linear(x, linear.weight), linear.bias
    return linear(x), None
