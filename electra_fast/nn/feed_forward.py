"""The feed-forward half of a layer under Hugging Face's names."""

from __future__ import annotations

from torch import Tensor, nn

from electra_fast import ops

from .attention import ResidualOutput
from .linear import project
from .sizes import Sizes


class Intermediate(nn.Module):
    """``gelu(dense(x))``, widening. State dict of `transformers`' ``ElectraIntermediate``: ``dense.*``."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., N]`` to ``[..., intermediate_size]``."""
        return project_and_gelu(x, self.dense)


class FeedForward(nn.Module):
    """``LN(x + dropout(output(gelu(intermediate(x)))))``: ``intermediate.dense.*``, ``output.{dense,LayerNorm}.*``."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)

    def forward(self, x: Tensor, rng: Tensor | None = None) -> Tensor:
        """``[..., N]`` to ``[..., N]``."""
        return self.output(self.intermediate(x), x, rng)


def project_and_gelu(x: Tensor, dense: nn.Module) -> Tensor:
    """``gelu(dense(x))``; the linear's bias is added by the activation."""
    y, bias = project(dense, x)
    return ops.gelu(y, bias)
