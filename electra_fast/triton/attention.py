"""Attention over packed sequences: launchers of the kernels in attention_forward.py and attention_backward.py.

One launch forward, two backward, whose grids follow from the tensors' shapes alone (attention_tiles.py), so that the
bounds of the sequences' lengths in the schema are not needed.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import configurations
from .attention_backward import key_kernel, query_kernel
from .attention_forward import forward_kernel
from .attention_tiles import LOG2_E, columns_of_thread, tiles
from .configurations import Configuration
from .launch import launch, on, power_of_two
from .random import dropout_arguments

WIDEST = 128


@functools.cache
def _tile_width(dim: int) -> int:
    if dim > WIDEST:
        raise ValueError(
            f"attention: q must have a head dimension of at most {WIDEST} for Triton kernels, got {dim}; "
            "use_backend('reference') takes any"
        )
    return power_of_two(dim, 16)


def _configuration(kernel: str, q: Tensor, dim: int) -> Configuration:
    """By head dimension, up to 64 or more; and apart for float32, whose products do not run on tensor cores."""
    shape = "64" if dim <= 64 else "128"
    return configurations.configuration(kernel, q.device, f"float32 {shape}" if q.dtype == torch.float32 else shape)


def _with_strides(*tensors: Tensor) -> tuple[list[Tensor], list[int]]:
    """The tensors, with contiguous rows, and their strides of rows and heads."""
    ready, strides = [], []
    for x in tensors:
        row, head, inside = x.stride()
        if inside != 1:
            x = x.contiguous()
            row, head, _ = x.stride()
        ready.append(x)
        strides += row, head
    return ready, strides


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    causal: bool,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor]:
    """out ``[Tq, H, D]`` and lse ``[H, Tq]`` float32, -inf for rows that see no key."""
    total, heads, dim = q.shape
    width = _tile_width(dim)
    batch = cu_seqlens_q.shape[0] - 1
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty((heads, total), dtype=torch.float32, device=q.device)
    if out.numel() == 0:
        return out, lse.fill_(float("-inf"))
    if scale < 0.0:  # the kernel takes the largest score before it scales
        q, scale = -q, -scale
    (q, k, v), strides = _with_strides(q, k, v)
    scale = max(scale, 1e-37)  # a hidden key's score is scale times -inf
    threshold, keep_scale = dropout_arguments(dropout_p)
    c = _configuration("attention_forward", q, dim)
    with on(q.device):
        launch(
            forward_kernel,
            c,
            (tiles(total, batch, c.block_m), heads),
            (q, k, v, cu_seqlens_q, cu_seqlens_k, rng, out, lse),
            (total, batch, scale * LOG2_E.value, keep_scale, threshold, site),
            (*strides, dim, width, causal, dropout_p > 0.0, c.block_m, c.block_n, *columns_of_thread(q.device)),
        )
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    causal: bool,
    dropout_p: float,
    rng: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq ``[Tq, H, D]``, dk and dv ``[Tk, H, D]``, from what forward returned; bit-equal from run to run."""
    total_q, heads, dim = q.shape
    width = _tile_width(dim)
    total_k, batch = k.shape[0], cu_seqlens_q.shape[0] - 1
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    delta = torch.empty((heads, total_q), dtype=torch.float32, device=q.device)
    (grad, q, k, v), strides = _with_strides(grad, q, k, v)
    threshold, keep_scale = dropout_arguments(dropout_p)
    numbers = (batch, scale, keep_scale, threshold, site)
    fixed = (*strides, dim, width, causal, dropout_p > 0.0)
    columns = columns_of_thread(q.device)
    with on(q.device):
        if dq.numel() > 0:
            c = _configuration("attention_backward_queries", q, dim)
            launch(
                query_kernel,
                c,
                (tiles(total_q, batch, c.block_m), heads),
                (grad, q, k, v, out.contiguous(), lse, cu_seqlens_q, cu_seqlens_k, rng, dq, delta),
                (total_q, *numbers),
                (*fixed, c.block_m, c.block_n, *columns),
            )
        if dk.numel() > 0:
            c = _configuration("attention_backward_keys", q, dim)
            launch(
                key_kernel,
                c,
                (tiles(total_k, batch, c.block_n), heads),
                (grad, q, k, v, lse, delta, cu_seqlens_q, cu_seqlens_k, rng, dk, dv),
                (total_q, total_k, *numbers),
                (*fixed, c.block_m, c.block_n, *columns),
            )
    return dq, dk, dv
