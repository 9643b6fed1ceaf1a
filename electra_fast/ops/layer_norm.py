"""Layer normalisation of a residual sum with dropout and bias."""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, checks


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    x_bias: Tensor | None = None,
    residual: Tensor | None = None,
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    rng: Tensor | None = None,
    site: int = 0,
) -> Tensor:
    """``s = residual + dropout(x + x_bias); y = (s - mean) · rstd · weight + bias``, ``rstd = 1/√(variance + eps)``.

    Args:
        x: ``[..., N]``, float32, bfloat16, float16 or float64, any strides.
        weight, bias: ``[N]``, x's dtype or float32.
        x_bias: ``[N]``, x's dtype or float32; absent means 0.
        residual: x's shape; absent means 0. Another float dtype is cast to x's.
        eps: added to the biased variance.
        dropout_p: in [0, 1), quantised to multiples of 1/256 (the scale matches, so the expectation is exact).
        rng: int64 ``[2]`` = (seed, step); drawn from torch's generator when absent and needed.
        site: counter of this place in the random-number contract.

    Returns: y, x's shape and dtype, contiguous. Statistics in float32 (float64 for float64). Saved for backward: s (or
    x where it is the same), mean, rstd and the parameters; the dropout mask is drawn again.

    Raises: TypeError for a wrong dtype, ValueError for a wrong shape, device, dropout_p or site.

    Source: Ba, Kiros, Hinton 2016; the post-LN block of Vaswani et al. 2017.
    """
    op = "layer_norm"
    checks.check(op, "x", x, checks.FLOATS)
    parameters, row = checks.parameter_dtypes(x), x.shape[-1:]
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{op}: x must have shape [..., N] with N > 0, got {list(x.shape)}")
    checks.check(op, "weight", weight, parameters, row, x)
    checks.check(op, "bias", bias, parameters, row, x)
    if x_bias is not None:
        checks.check(op, "x_bias", x_bias, parameters, row, x)
    if residual is not None:
        checks.check(op, "residual", residual, checks.FLOATS, x.shape, x)
        residual = residual if residual.dtype == x.dtype else residual.to(x.dtype)
    rng = checks.dropout_rng(op, dropout_p, rng, site, x)
    args = (x, x_bias, residual, weight, bias, eps, dropout_p, rng, site)
    return backend.run(op, args, x.device, x.dtype)[0]


def _accumulation(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake(x, x_bias, residual, weight, bias, eps, dropout_p, rng, site):
    plain = x_bias is None and residual is None and dropout_p == 0.0
    rows = x.numel() // x.shape[-1]
    statistic = x.new_empty(rows, dtype=_accumulation(x))
    return x.new_empty(x.shape), x.new_empty(0 if plain else x.shape), statistic, torch.empty_like(statistic)


def _backward_fake(grad, total, mean, rstd, weight, bias, x_bias, dropout_p, rng, site):
    return (
        total.new_empty(total.shape if dropout_p > 0.0 else 0),
        total.new_empty(total.shape),
        total.new_empty(0) if x_bias is None else torch.empty_like(x_bias),
        torch.empty_like(weight),
        torch.empty_like(bias),
    )


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    x, x_bias, residual, weight, bias, _, dropout_p, rng, site = inputs
    _, total, mean, rstd = outputs
    plain = x_bias is None and residual is None and dropout_p == 0.0
    return (x if plain else total, mean, rstd, weight, bias, x_bias, rng), (dropout_p, site, residual is not None)


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor | None, ...]:
    *saved, rng = tensors
    dropout_p, site, has_residual = values
    dx, dresidual, dx_bias, dweight, dbias = derivative(grad, *saved, dropout_p, rng, site)
    return (
        dx if dropout_p > 0.0 else dresidual,
        None if saved[-1] is None else dx_bias,
        dresidual if has_residual else None,
        dweight,
        dbias,
    )


backend.register(
    "layer_norm",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(0, 5),
    save=_save,
    backward=_backward,
)
