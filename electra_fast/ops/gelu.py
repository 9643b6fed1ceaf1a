"""Exact GELU of x + bias."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, checks


def gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``z = x + bias; y = z/2 · (1 + erf(z/√2))``.

    Args:
        x: ``[..., N]``, float32, bfloat16, float16 or float64, any strides.
        bias: ``[N]``, x's dtype or float32.

    Returns: y, x's shape and dtype, contiguous. Computed in float32 (float64 for float64). Saved for backward: x, bias.

    Raises: TypeError for a wrong dtype, ValueError for a wrong shape or device.

    Source: Hendrycks & Gimpel 2016, the erf form that BERT and ELECTRA use.
    """
    checks.check("gelu", "x", x, checks.FLOATS)
    if bias is not None:
        checks.check("gelu", "bias", bias, checks.parameter_dtypes(x), x.shape[-1:], x)
    return backend.run("gelu", (x, bias), x.device, x.dtype)


def _fake(x: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


def _backward_fake(grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0) if bias is None else torch.empty_like(bias)


def _save(inputs: tuple, y: Tensor) -> tuple[tuple, tuple]:
    return inputs, ()


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, Tensor | None]:
    x, bias = tensors
    dx, dbias = derivative(grad, x, bias)
    return dx, None if bias is None else dbias


backend.register(
    "gelu",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(0, 2),
    save=_save,
    backward=_backward,
)
