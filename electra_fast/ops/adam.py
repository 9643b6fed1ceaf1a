"""ELECTRA's optimiser step over a list of parameters, in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import backend, checks


def adam_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    *,
    weight_decay: Sequence[float],
    learning_rate: Tensor,
    grad_scale: Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
) -> None:
    """``m ← β1 m + (1-β1) g·c; v ← β2 v + (1-β2) (g·c)²; p ← p - lr (m/(√v + eps) + decay·p)``.

    Adam without bias correction, eps outside the root, decay decoupled and times the learning rate.

    Args:
        params, grads, exp_avg, exp_avg_sq: lists of tensors, the same shapes, all but the gradients contiguous; a
            gradient has its parameter's dtype, the averages that dtype or float32. Parameters and averages are updated
            in place.
        weight_decay: one number per parameter.
        learning_rate, grad_scale (``c``, the clipping factor): tensors ``[]``, float32 or float64, so that neither is
            read back by the host. If ``c`` is NaN nothing is updated: how a step whose gradients are not finite is
            skipped.

    Raises: TypeError for a wrong dtype; ValueError for lists of different lengths, or a wrong shape, device or strides.

    Source: google-research/electra ``optimization.py``; Loshchilov & Hutter 2019 for the decay.
    """
    op = "adam"
    lists = {"grads": grads, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "weight_decay": weight_decay}
    for name, values in lists.items():
        if len(values) != len(params):
            raise ValueError(
                f"{op}: {name} must have one entry for each of the {len(params)} params, got {len(values)}"
            )
    if not params:
        return
    first = params[0]
    for index, (p, g, m, v) in enumerate(zip(params, grads, exp_avg, exp_avg_sq, strict=True)):
        checks.check(op, f"params[{index}]", p, checks.FLOATS, None, first)
        checks.check(op, f"grads[{index}]", g, (p.dtype,), p.shape, first)
        checks.check(op, f"exp_avg[{index}]", m, checks.parameter_dtypes(p), p.shape, first)
        checks.check(op, f"exp_avg_sq[{index}]", v, (m.dtype,), p.shape, first)
        for name, x in (("params", p), ("exp_avg", m), ("exp_avg_sq", v)):
            if not x.is_contiguous():
                raise ValueError(f"{op}: {name}[{index}] must be contiguous, got strides {x.stride()}")
    for name, x in (("learning_rate", learning_rate), ("grad_scale", grad_scale)):
        checks.check(op, name, x, (torch.float32, torch.float64), (), first)
    updated = (*params, *exp_avg, *exp_avg_sq)
    args = (
        list(params), [g.contiguous() for g in grads], list(exp_avg), list(exp_avg_sq), list(weight_decay),
        learning_rate, grad_scale, beta1, beta2, eps,
    )  # fmt: skip
    with torch.no_grad():
        backend.run(op, args, first.device, *dict.fromkeys(x.dtype for x in updated))
    if not torch.compiler.is_compiling():  # a compiled graph makes it known by itself
        torch.autograd.graph.increment_version(updated)


def _fake(params, grads, exp_avg, exp_avg_sq, weight_decay, learning_rate, grad_scale, beta1, beta2, eps) -> None:
    return None


backend.register("adam", _fake)
