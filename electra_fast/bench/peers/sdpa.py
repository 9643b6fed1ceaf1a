"""Attention of others: torch's scaled_dot_product_attention by backend, flex attention, FlashAttention."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from electra_fast.bench.case import Absent

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """``build(lengths, device, dropout)`` makes a function of packed q, k, v [T, H, D]."""

    name: str
    build: Callable[[Sequence[int], str, float], Function]
    setting: str
    level: str = "quick"


def peers(device: str, dropout: float) -> list[Peer]:
    """Those for the device; the first is the one that runs everywhere."""
    found = [Peer("torch sdpa", _padded(None), "torch's choice of kernel" + _cpu_note(device, dropout))]
    if not device.startswith("cuda"):
        compile_ = Peer("torch.compile sdpa", _compiled, "default mode, static shapes", "full")
        return [*found, compile_] if dropout else found
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
        backend = getattr(SDPBackend, name)
        found.append(Peer(f"torch sdpa {name.partition('_')[0].lower()}", _padded(backend), name))
    found.append(Peer("flex attention", _flex, "compiled, max-autotune-no-cudagraphs", "default"))
    found.append(Peer("FlashAttention", _flash, "flash_attn_varlen_func"))
    return found


def _cpu_note(device: str, dropout: float) -> str:
    return ", which with dropout is not its flash kernel" if dropout and device == "cpu" else ""


def _pad(lengths: Sequence[int], device: str) -> tuple[Callable, Callable, Tensor | None]:
    """Packed [T, H, D] to [B, H, S, D] and back, and a mask [B, 1, 1, S]; views without a mask where all are equal."""
    count, longest = len(lengths), max(lengths)
    if len(set(lengths)) == 1:
        return (
            lambda x: x.view(count, longest, *x.shape[1:]).transpose(1, 2),
            lambda x: x.transpose(1, 2).flatten(0, 1),
            None,
        )
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    index = mask.flatten().nonzero().squeeze(1)

    def pad(x: Tensor) -> Tensor:
        padded = x.new_zeros(count * longest, *x.shape[1:]).index_copy(0, index, x)
        return padded.view(count, longest, *x.shape[1:]).transpose(1, 2)

    return pad, lambda x: x.transpose(1, 2).flatten(0, 1).index_select(0, index), mask[:, None, None]


def _padded(backend: SDPBackend | None) -> Callable[[Sequence[int], str, float], Function]:
    def build(lengths: Sequence[int], device: str, dropout: float) -> Function:
        pad, unpad, mask = _pad(lengths, device)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = F.scaled_dot_product_attention(pad(q), pad(k), pad(v), attn_mask=mask, dropout_p=dropout)
            return unpad(out)

        if backend is None:
            return attend

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return attend(q, k, v)

        return run

    return build


def _compiled(lengths: Sequence[int], device: str, dropout: float) -> Function:
    torch._dynamo.reset()
    return torch.compile(_padded(None)(lengths, device, dropout), dynamic=False)


def _flex(lengths: Sequence[int], device: str, dropout: float) -> Function:
    if dropout:
        raise Absent("flex attention has no dropout")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
    total = len(ids)
    blocks = create_block_mask(lambda b, h, q, k: ids[q] == ids[k], None, None, total, total, device=device)
    attend = torch.compile(flex_attention, mode="max-autotune-no-cudagraphs", dynamic=False)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        packed = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
        return attend(*packed, block_mask=blocks).squeeze(0).transpose(0, 1)

    return run


def _flash(lengths: Sequence[int], device: str, dropout: float) -> Function:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        raise Absent(f"flash-attn is not installed ({error})") from None
    cu, longest = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device), max(lengths)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype is torch.float32:
            raise Absent("FlashAttention has no float32")
        return flash_attn_varlen_func(q, k, v, cu, cu, longest, longest, dropout_p=dropout)

    return run
