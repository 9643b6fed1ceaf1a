"""ELECTRA: configuration, encoder, pretraining pair, task heads, and the way to Hugging Face and back."""

from .config import ElectraConfig
from .pretraining_config import PretrainingConfig

__all__ = ["ElectraConfig", "PretrainingConfig"]
