"""The public functional API: every op once, and the choice of the backend that runs it.

An op is a pure function of tensors (`adam_` alone updates in place) with no data-dependent shape and no host
synchronisation; it works under autocast and ``torch.compile(fullgraph=True)``.
"""

from .adam import adam_
from .attention import attention, attention_padded
from .backend import BACKENDS, OPS, backends, use_backend
from .discriminator_loss import discriminator_loss
from .embedding import embedding
from .encoder import LayerParameters, PackedLayers, encoder, encoder_missing, pack_layers
from .feed_forward import feed_forward
from .gelu import gelu
from .generator_head import GeneratorOutput, generator_head
from .layer_norm import layer_norm
from .mask_tokens import MaskedTokens, mask_tokens, max_predictions_bound
from .mask_words import mask_words
from .replace_tokens import replace_tokens

__all__ = [
    "BACKENDS",
    "OPS",
    "GeneratorOutput",
    "LayerParameters",
    "MaskedTokens",
    "PackedLayers",
    "adam_",
    "attention",
    "attention_padded",
    "backends",
    "discriminator_loss",
    "embedding",
    "encoder",
    "encoder_missing",
    "feed_forward",
    "gelu",
    "generator_head",
    "layer_norm",
    "mask_tokens",
    "mask_words",
    "max_predictions_bound",
    "pack_layers",
    "replace_tokens",
    "use_backend",
]
