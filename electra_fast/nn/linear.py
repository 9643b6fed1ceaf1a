"""Linear layers whose bias the following op adds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def is_plain(module: nn.Module, kind: type[nn.Module], harmless_hook: str | None = None) -> bool:
    """Whether the parameters are all that matters of a module of this class: no other forward, no hooks.

    A forward hook of the name ``harmless_hook`` does not count.
    """
    own = isinstance(module, kind) and type(module).forward is kind.forward and "forward" not in module.__dict__
    hooks = (module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return own and not any(hooks) and all(hook.__name__ == harmless_hook for hook in module._forward_hooks.values())


def project(linear: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``x Wᵀ``, and the bias that is still to be added (None: it has been).

    Anything but a plain `torch.nn.Linear` (an adapter, a quantised layer, one with hooks) is called as it is.
    """
    if is_plain(linear, nn.Linear):
        return F.linear(x, linear.weight), linear.bias
    return linear(x), None
