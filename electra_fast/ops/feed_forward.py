"""The feed-forward half of a layer in training on the CPU: both products, and the activation between, in one pass."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast.registration import Formula, attach

from . import backend, checks, native
from .gelu import gelu

SMALLEST = 2**18  # rows · in · middle from which laying the weights out anew is worth while


def feed_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
    """``gelu(x W1ᵀ + b1) W2ᵀ``; wherever our kernel does not run, torch's products around `gelu`.

    It runs on the CPU, in eager mode, in float32 and, directly or by autocast, in bfloat16. A block of rows goes
    through both products while what lies between them is in cache, forward and backward. Saved for backward: x,
    ``u = x W1ᵀ + b1`` and the parameters; gelu(u), as large as u, is made again. Parameters are read as they are and
    have gradients of their own dtype, sums of float32 that were not rounded before.

    Args:
        x: ``[..., in]``; w1: ``[middle, in]``; b1: ``[middle]``; w2: ``[out, middle]``; x's dtype or float32.

    Returns: ``[..., out]``. The bias of the second layer is for the op that follows to add.

    Raises: RuntimeError for shapes that do not fit and, from our kernel, for a second derivative.

    Source: Vaswani et al. 2017, section 3.3, with GELU (Hendrycks and Gimpel 2016).
    """
    dtype = checks.autocast_dtype(x) or x.dtype
    if not _runs(x, dtype, w1, b1, w2):
        return F.linear(gelu(F.linear(x, w1), b1), w2)
    rows = x.to(dtype).flatten(0, -2)
    with torch.autocast("cpu", enabled=False):
        y, _ = _native(rows, w1, b1, w2)
    return y.view(*x.shape[:-1], w2.shape[0])


def _runs(x: Tensor, dtype: torch.dtype, w1: Tensor, b1: Tensor, w2: Tensor) -> bool:
    """Whether our kernel takes these, and nobody wants to see through it, as tracing does."""
    return (
        _native is not None
        and x.device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and all(p.device.type == "cpu" and p.dtype in (dtype, torch.float32) for p in (w1, b1, w2))
        and backend.forced("gelu") in (None, "native")
        and x.ndim >= 2
        and (w1.ndim, b1.ndim, w2.ndim) == (2, 1, 2)
        and (x.shape[-1], len(w1), len(w1)) == (w1.shape[1], len(b1), w2.shape[1])
        and math.prod(x.shape) * len(w1) >= SMALLEST
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def _fake(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], w2.shape[0]), x.new_empty(x.shape[0], w1.shape[0])


def _backward_fake(grad, x, u, w1, b1, w2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(w1), torch.empty_like(b1), torch.empty_like(w2)


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    x, *parameters = inputs
    return (x, outputs[1], *parameters), ()


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return derivative(grad, *tensors)


_native = None
if native.error is None:
    _name = f"{native.NAMESPACE}::feed_forward"
    _formula = Formula(_fake, _backward_fake, slice(0, 4), _save, _backward)
    _native = attach("feed_forward", _name, _formula, "native")
