"""adam: ``m ← β1 m + (1-β1) g·c; v ← β2 v + (1-β2) (g·c)²; p ← p - lr (m/(√v + eps) + decay·p)``, in place.

Bound by memory: every element is read and written once, 28 bytes in float32. A launch a parameter: Triton has no lists
of pointers, and a table of addresses in device memory would have to be copied there whenever a gradient moves, which a
CUDA graph does not allow. A model of 200 parameters so takes some 2 ms of the host's time a step, none in a graph.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch, on


@triton.jit(do_not_specialize=["count"])
def update_kernel(
    param, grad, exp_avg, exp_avg_sq, learning_rate, grad_scale, count, weight_decay, keep1, add1, keep2, add2, eps,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: elements ``i·BLOCK_N …`` of a parameter. keep = β, add = 1 - β."""
    place = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rate, scale = tl.load(learning_rate).to(tl.float32), tl.load(grad_scale).to(tl.float32)
    factor = tl.zeros([BLOCK_N], tl.float32) + scale
    inside = (place < count) & (factor == factor)  # NaN: nothing is updated
    gradient = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32) * scale
    value = tl.load(param + place, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(exp_avg + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(exp_avg_sq + place, mask=inside, other=0.0).to(tl.float32)
    first = keep1 * first + add1 * gradient
    second = keep2 * second + add2 * (gradient * gradient)
    value -= rate * (first / (tl.sqrt_rn(second) + eps) + weight_decay * value)
    tl.store(param + place, value.to(param.dtype.element_ty), mask=inside)
    tl.store(exp_avg + place, first.to(exp_avg.dtype.element_ty), mask=inside)
    tl.store(exp_avg_sq + place, second.to(exp_avg_sq.dtype.element_ty), mask=inside)


def forward(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    weight_decay: list[float],
    learning_rate: Tensor,
    grad_scale: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Update parameters and averages, all contiguous."""
    if not params:
        return
    c = configuration("adam", params[0].device)
    with on(params[0].device):
        for p, g, m, v, decay in zip(params, grads, exp_avg, exp_avg_sq, weight_decay, strict=True):
            if count := p.numel():
                launch(
                    update_kernel,
                    c,
                    (divide_up(count, c.block_n),),
                    (p, g.contiguous(), m, v, learning_rate, grad_scale),
                    (count, decay, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps),
                    (c.block_n,),
                )
