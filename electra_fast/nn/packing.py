"""Padded batches as packed sequences: which rows are real, and the way there and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


@dataclass(frozen=True)
class Packing:
    """How the real tokens of a padded batch ``[B, S]`` lie end to end.

    Attributes:
        shape: (B, S).
        cu_seqlens: int32 ``[B+1]``.
        index: int64 ``[T]``, the flat padded index of every packed row; None: the batch has no padding.
        real: bool ``[T]``, which packed rows hold a token; None: all do.
    """

    shape: tuple[int, int]
    cu_seqlens: Tensor
    index: Tensor | None = None
    real: Tensor | None = None

    @property
    def max_seqlen(self) -> int:
        """S bounds every sequence's length."""
        return self.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        """``[B, S, ...]`` to ``[T, ...]``."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """``[T, ...]`` to ``[B, S, ...]``, zeros where there is no token."""
        if self.index is not None:
            if self.real is not None:
                x = torch.where(
                    self.real.view(-1, *(1,) * (x.ndim - 1)), x, torch.zeros((), dtype=x.dtype, device=x.device)
                )
            batch, length = self.shape
            x = x.new_zeros(batch * length, *x.shape[1:]).index_copy(0, self.index, x)
        return x.unflatten(0, self.shape)


def whole_batch(tokens: Tensor) -> tuple[Packing, Tensor, Tensor]:
    """Of ``[B, S]`` without padding: the packing, each token's position in its row and as many zeros, int64 ``[B·S]``.

    In inference on the CPU all batches of one shape get the same tensors: making them costs a hundredth of a small
    encoder's time with one sentence.
    """
    batch, length = tokens.shape
    lasting = type(tokens) is Tensor and tokens.device.type == "cpu" and not torch.is_grad_enabled()
    seen = torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode()
    if lasting and not seen:  # what a mode makes, as of fake tensors, must not outlive it
        return _whole_batch_kept(batch, length, torch.is_inference_mode_enabled())
    return _whole_batch(batch, length, tokens.device)


def _whole_batch(batch: int, length: int, device: torch.device) -> tuple[Packing, Tensor, Tensor]:
    positions = torch.arange(length, device=device).repeat(batch)
    return without_padding(batch, length, device), positions, torch.zeros_like(positions)


@lru_cache(maxsize=16)
def _whole_batch_kept(batch: int, length: int, _inference_mode: bool) -> tuple[Packing, Tensor, Tensor]:
    """A tensor of inference mode is of no use outside of it: hence the last argument."""
    return _whole_batch(batch, length, torch.device("cpu"))


def without_padding(batch: int, length: int, device: torch.device) -> Packing:
    """Every token of ``[batch, length]`` is real."""
    return Packing((batch, length), torch.arange(batch + 1, dtype=torch.int32, device=device) * length)


def pack_mask(mask: Tensor) -> Packing:
    """The packing of a mask ``[B, S]``, non-zero for real tokens, in any pattern (left padding, holes, empty rows).

    In eager mode exactly the real tokens are kept, which reads their number back from a GPU. While tracing or
    compiling shapes must not depend on values: all ``B·S`` rows are kept, the real ones first and in their order.
    """
    mask = mask != 0
    batch, length = mask.shape
    ends = mask.sum(1, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    cu_seqlens = torch.cat([ends.new_zeros(1), ends])
    flat = mask.flatten()
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        index = torch.argsort(~flat, stable=True)
        return Packing((batch, length), cu_seqlens, index, flat.index_select(0, index))
    index = flat.nonzero().squeeze(1)
    if index.shape[0] == batch * length:
        return without_padding(batch, length, mask.device)
    return Packing((batch, length), cu_seqlens, index)
