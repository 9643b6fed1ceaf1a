"""The layers of a post-LN transformer encoder, and where each of them draws its random numbers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from electra_fast.rng import fresh

from .attention import Attention, ResidualOutput
from .feed_forward import Intermediate, feed_forward
from .packed import encode_packed
from .sizes import Sizes


class EncoderLayer(nn.Module):
    """Attention, then feed-forward, each with its residual and norm after it.

    State dict of `transformers`' ``ElectraLayer``: ``attention.self.{query,key,value}.*``,
    ``attention.output.{dense,LayerNorm}.*``, ``intermediate.dense.*``, ``output.{dense,LayerNorm}.*``.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)
        assign_sites(self, 0)

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        rng: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """As `SelfAttention.forward`: packed ``[T, N]`` with cu_seqlens, or padded ``[B, S, N]`` with a mask."""
        x = self.attention(x, cu_seqlens, max_seqlen, rng, attention_mask)
        return feed_forward(x, self.intermediate, self.output, rng)


class Encoder(nn.Module):
    """A stack of `EncoderLayer`: ``layer.{i}.*``.

    ``gradient_checkpointing``: 0 (or False) for none; 1 (True) keeps only the layers' inputs in training and computes
    the rest again in backward; k does so in every k-th layer. Dropout draws the same bits again by itself, so that
    gradients are the same to the last bit.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing: int = 0
        assign_sites(self, 0)

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        rng: Tensor | None = None,
        attention_mask: Tensor | None = None,
        projection: nn.Linear | None = None,
    ) -> Tensor:
        """As `SelfAttention.forward`. In training without ``rng`` one is drawn for all layers.

        ``projection``: of the input to hidden states, before the first layer; x then has its width.
        """
        if self.training and rng is None:
            rng = fresh(x.device)
        if x.ndim == 2 and cu_seqlens is not None and attention_mask is None:
            packed = encode_packed(self, self.layer, x, cu_seqlens, max_seqlen, projection=projection)
            if packed is not None:
                return packed
        if projection is not None:
            x = projection(x)
        every = self.gradient_checkpointing if self.training else 0
        for index, layer in enumerate(self.layer):
            if every and index % every == 0:
                inputs = (x, cu_seqlens, max_seqlen, rng, attention_mask)
                x = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cu_seqlens, max_seqlen, rng, attention_mask)
        return x


def assign_sites(module: nn.Module, start: int) -> int:
    """Number the places in ``module`` that draw (submodules with a ``site``) from ``start`` on; returns the next one.

    The order is that of ``module.modules()``: in an encoder layer by layer, each with attention probabilities,
    attention output and feed-forward output.
    """
    for place in module.modules():
        if hasattr(place, "site"):
            place.site = start
            start += 1
    return start
