"""Modules that own parameters over one op each, drop-in for their `torch.nn` or Hugging Face counterparts."""

from .attention import Attention, ResidualOutput, SelfAttention
from .decoder import CrossAttention, Decoder, DecoderLayer
from .embeddings import Embeddings
from .encoder import Encoder, EncoderLayer, assign_sites
from .feed_forward import FeedForward, Intermediate
from .gelu import GELU
from .layer_norm import LayerNorm
from .multihead_attention import MultiheadAttention
from .packing import Packing, pack_mask

__all__ = [
    "GELU",
    "Attention",
    "CrossAttention",
    "Decoder",
    "DecoderLayer",
    "Embeddings",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "Intermediate",
    "LayerNorm",
    "MultiheadAttention",
    "Packing",
    "ResidualOutput",
    "SelfAttention",
    "assign_sites",
    "pack_mask",
]
