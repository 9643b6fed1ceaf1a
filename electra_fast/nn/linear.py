"""Linear layers whose bias the following op adds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether nothing but the parameters of a module of this class matters: no subclass, no hooks."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return isinstance(module, kind) and type(module).forward is kind.forward and not any(hooks)


def project(linear: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``x Wᵀ``, and the bias that is still to be added (None: it has been).

    Anything but a plain `torch.nn.Linear` (an adapter, a quantised layer, one with hooks) is called as it is.
    """
    if is_plain(linear, nn.Linear):
        return F.linear(x, linear.weight), linear.bias
    return linear(x), None
