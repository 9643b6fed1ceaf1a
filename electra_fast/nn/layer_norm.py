"""Layer normalisation with what stands before it in a post-LN block: bias, dropout and residual, in one pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from electra_fast import ops

from .linear import project


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` (same constructor and state dict) of ``residual + dropout(x + x_bias)``."""

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        x_bias: Tensor | None = None,
        dropout_p: float = 0.0,
        rng: Tensor | None = None,
        site: int = 0,
    ) -> Tensor:
        """Normalise over the last ``len(normalized_shape)`` dimensions; see `electra_fast.ops.layer_norm`.

        Args:
            x: ``[..., *normalized_shape]``; residual: x's shape; x_bias: ``normalized_shape``.
            dropout_p: applied as given, whether in training or not: the caller knows what it drops.
        """
        dims = len(self.normalized_shape)
        if tuple(x.shape[-dims:]) != tuple(self.normalized_shape):
            raise ValueError(
                f"LayerNorm: x must end in the dimensions {list(self.normalized_shape)}, got shape {list(x.shape)}"
            )
        size = math.prod(self.normalized_shape)
        weight = torch.ones(size, dtype=x.dtype, device=x.device) if self.weight is None else self.weight.flatten()
        bias = torch.zeros_like(weight) if self.bias is None else self.bias.flatten()
        y = ops.layer_norm(
            x.flatten(-dims),
            weight,
            bias,
            x_bias=None if x_bias is None else x_bias.flatten(),
            residual=None if residual is None else residual.flatten(-dims),
            eps=self.eps,
            dropout_p=dropout_p,
            rng=rng,
            site=site,
        )
        return y.view(x.shape)


def project_and_norm(x: Tensor, residual: Tensor, dense: nn.Module, norm: nn.LayerNorm, **dropout: Any) -> Tensor:
    """``LN(residual + dropout(dense(x)))``: how a post-LN block ends. The linear's bias is added by the norm.

    dropout: ``dropout_p``, ``rng`` and ``site`` of `electra_fast.ops.layer_norm`.
    """
    y, bias = project(dense, x)
    return add_and_norm(y, bias, residual, norm, **dropout)


def add_and_norm(y: Tensor, bias: Tensor | None, residual: Tensor, norm: nn.LayerNorm, **dropout: Any) -> Tensor:
    """``LN(residual + dropout(y + bias))``; dropout as in `project_and_norm`."""
    return ops.layer_norm(y, norm.weight, norm.bias, x_bias=bias, residual=residual, eps=norm.eps, **dropout)
