"""The discriminator's last projection and its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, checks


def discriminator_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``logit = hidden · weight + bias``; binary cross-entropy with logits, summed over the rows where mask is True.

    Args:
        hidden: ``[T, K]``, float32, bfloat16, float16 or float64.
        weight: ``[1, K]`` or ``[K]``; bias: ``[1]``; hidden's dtype or float32.
        labels: bool ``[T]``, True for a replaced token; mask: bool ``[T]``, absent means all rows.

    Returns: the sum ``[]`` and the logits ``[T]``, in float32 (float64 for float64); the logits carry no gradient.
    Saved for backward: the inputs and the logits.

    Raises: TypeError for a wrong dtype, ValueError for a wrong shape or device.

    Source: Clark et al. 2020, section 2.
    """
    op = "discriminator_loss"
    checks.check(op, "hidden", hidden, checks.FLOATS, (None, None))
    parameters, width = checks.parameter_dtypes(hidden), hidden.shape[1]
    checks.check(op, "weight", weight, parameters)
    checks.check(op, "weight", weight, parameters, (width,) if weight.ndim == 1 else (1, width), hidden)
    checks.check(op, "bias", bias, parameters, (1,), hidden)
    checks.check(op, "labels", labels, checks.BOOL, hidden.shape[:1], hidden)
    if mask is not None:
        checks.check(op, "mask", mask, checks.BOOL, hidden.shape[:1], hidden)
    return backend.run(op, (hidden, weight, bias, labels, mask), hidden.device, hidden.dtype)


def _fake(hidden, weight, bias, labels, mask):
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    return hidden.new_empty((), dtype=dtype), hidden.new_empty(hidden.shape[0], dtype=dtype)


def _backward_fake(grad, hidden, weight, bias, labels, mask, logits):
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    _, logits = outputs
    return (*inputs, logits), ()


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, Tensor, Tensor]:
    return derivative(grad, *tensors)


backend.register(
    "discriminator_loss",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(0, 3),
    save=_save,
    backward=_backward,
)
