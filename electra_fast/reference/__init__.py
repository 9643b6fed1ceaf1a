"""The truth: every op in plain PyTorch, for any dtype on any device, to be read beside the papers.

A function takes the arguments of its op's schema (docs/design.md) and returns the same tensors; autograd differentiates
it by itself. Values are checked on the CPU; elsewhere, and while tracing, nothing is read back. `mask_words` has no
schema: no other backend implements it.
"""

from .adam import adam_
from .attention import attention
from .discriminator_loss import discriminator_loss
from .embedding import embedding
from .encoder import encoder
from .gelu import gelu
from .generator_head import generator_head
from .layer_norm import layer_norm
from .mask_tokens import mask_tokens
from .mask_words import mask_words
from .replace_tokens import replace_tokens

__all__ = [
    "adam_",
    "attention",
    "discriminator_loss",
    "embedding",
    "encoder",
    "gelu",
    "generator_head",
    "layer_norm",
    "mask_tokens",
    "mask_words",
    "replace_tokens",
]
