"""generator_head: launchers. The kernels are in the files beside this one: the forward, and a backward for few features
and one for many.

A float32 weight beside 16-bit activations is rounded to their dtype once, before the kernels: they read it once for
every block of slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import configurations
from .configurations import Configuration
from .generator_head_chunks import backward_in_chunks
from .generator_head_forward import GROUP, finish_kernel, noise_kernel, sweep_kernel
from .generator_head_recompute import backward_by_recomputation
from .generator_head_tiles import FLOAT16_PEAK, UNUSED, steps_per_part
from .launch import divide_up, launch, on, power_of_two

NARROW = 128  # features, up to which the backward computes logits again instead of storing their gradients


def _configuration(kernel: str, hidden: Tensor, other_sampling: bool = False) -> Configuration:
    """other_sampling: the sample is drawn from other logits than the loss."""
    shape = f"other {_shape_class(hidden)}" if other_sampling else _shape_class(hidden)
    return configurations.configuration(f"generator_head_{kernel}", hidden.device, shape)


def _shape_class(hidden: Tensor) -> str:
    """float32 is bound by its products, of which storing needs one less, however few the features."""
    if hidden.dtype == torch.float32:
        return "float32"
    return "narrow" if hidden.shape[1] <= NARROW else "wide"


def forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    temperature: float,
    disallow_correct: bool,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss, sampled, predicted, lse ``[P]``; all 0 in unused slots."""
    (slots, features), columns, device = hidden.shape, weight.shape[0], hidden.device
    loss = torch.empty(slots, dtype=torch.float32, device=device)
    sampled = torch.empty(slots, dtype=torch.int64, device=device)
    lse, predicted = torch.empty_like(loss), torch.empty_like(sampled)
    if slots == 0:
        return loss, sampled, predicted, lse
    hidden, weight = hidden.contiguous(), weight.to(hidden.dtype).contiguous()
    bias, targets = bias.contiguous(), targets.contiguous()
    tempered = temperature != 1.0
    c = _configuration("sweep", hidden, tempered or disallow_correct)
    finish = _configuration("finish", hidden)
    resident = features <= c.block_k
    row_blocks, tiles = divide_up(slots, c.block_m), divide_up(columns, c.block_n)
    calls = divide_up(columns, 4 * GROUP.value)  # of the generator, a slot
    steps = steps_per_part(row_blocks, tiles)
    parts, rows = divide_up(tiles, steps), row_blocks * c.block_m
    partials = torch.empty((3 + 2 * GROUP.value, parts, rows), dtype=torch.float32, device=device)
    kept_groups = torch.empty((2, parts, rows), dtype=torch.int32, device=device)
    noise = torch.empty((4 * calls, rows), dtype=torch.float32, device=device)
    with on(device):
        launch(noise_kernel, finish, (divide_up(slots, 256), calls), (rng, noise), (slots, site), (rows, 256))
        block_k = power_of_two(features, 16) if resident else c.block_k
        launch(
            sweep_kernel,
            c,
            (row_blocks, parts),
            (hidden, weight, bias, targets, noise, partials, kept_groups),
            (slots, steps, 1.0 / temperature),
            (columns, rows, features, tempered, disallow_correct, resident, c.block_m, c.block_n, block_k),
        )
        block_k = min(power_of_two(features), finish.block_k)
        launch(
            finish_kernel,
            finish,
            (divide_up(slots, finish.block_m),),
            (hidden, weight, bias, targets, rng, partials, kept_groups, loss, sampled, predicted, lse),
            (slots, parts, rows, site),
            (columns, features, power_of_two(parts), finish.block_m, block_k),
        )
    return loss, sampled, predicted, lse


def _float16_scale(grad: Tensor, targets: Tensor) -> Tensor:
    """The power of two, ``[]``, that brings the largest |grad| of a used slot to just under `FLOAT16_PEAK`."""
    exponent = torch.frexp(torch.where(targets == UNUSED.value, 0.0, grad).abs().amax()).exponent  # |grad| < 2^exponent
    return torch.exp2((math.log2(FLOAT16_PEAK) - exponent).clamp(-100.0, 100.0))


def backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dhidden, dweight, dbias in the parameters' dtypes; bit-equal from run to run."""
    gradients = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (hidden, weight, bias))
    if hidden.shape[0] == 0:
        for gradient in gradients:
            gradient.zero_()
        return gradients
    weight = weight.to(hidden.dtype)
    inputs = tuple(x.contiguous() for x in (grad, hidden, weight, bias, targets, lse))
    scale = _float16_scale(grad, targets) if hidden.dtype == torch.float16 else None
    recompute = _shape_class(hidden) == "narrow"
    kernels = ("dhidden", "dweight") if recompute else ("gradient", "product")
    fill = backward_by_recomputation if recompute else backward_in_chunks
    with on(hidden.device):
        fill(inputs, scale, gradients, *(_configuration(kernel, hidden) for kernel in kernels))
    return gradients
