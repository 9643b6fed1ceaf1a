"""The feed-forward half of a layer under Hugging Face's names."""

from __future__ import annotations

from torch import Tensor, nn

from electra_fast import ops

from .attention import ResidualOutput
from .linear import is_plain, project
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
        return feed_forward(x, self.intermediate, self.output, rng)


def feed_forward(x: Tensor, intermediate: nn.Module, output: nn.Module, rng: Tensor | None) -> Tensor:
    """``output(intermediate(x), x)``; where both are as they were made, in fewer passes (`electra_fast.ops`)."""
    if is_plain(intermediate, Intermediate) and is_plain(output, ResidualOutput):
        return output.add_and_norm(*widen_and_project(x, intermediate.dense, output.dense), x, rng)
    return output(intermediate(x), x, rng)


def widen_and_project(x: Tensor, first: nn.Module, second: nn.Module) -> tuple[Tensor, Tensor | None]:
    """``second(gelu(first(x)))``, and the second one's bias where it is still to be added."""
    if all(is_plain(linear, nn.Linear) for linear in (first, second)) and first.bias is not None:
        return ops.feed_forward(x, first.weight, first.bias, second.weight), second.bias
    return project(second, project_and_gelu(x, first))


def project_and_gelu(x: Tensor, dense: nn.Module) -> Tensor:
    """``gelu(dense(x))``; the linear's bias is added by the activation."""
    y, bias = project(dense, x)
    return ops.gelu(y, bias)
