"""ELECTRA: configuration, encoder, pretraining pair, task heads, translation; the way to Hugging Face and back."""

from .config import ElectraConfig
from .encoder import ElectraModel
from .heads import (
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from .huggingface import load_config, load_pretrained, save_pretrained
from .pretraining import ElectraPretrainingPair, PretrainingOutput
from .pretraining_config import PretrainingConfig
from .translation import ElectraForTranslation
from .translation_config import TranslationConfig

__all__ = [
    "ElectraConfig",
    "ElectraForMaskedLM",
    "ElectraForMultipleChoice",
    "ElectraForPreTraining",
    "ElectraForQuestionAnswering",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForTranslation",
    "ElectraModel",
    "ElectraPretrainingPair",
    "PretrainingConfig",
    "PretrainingOutput",
    "TranslationConfig",
    "load_config",
    "load_pretrained",
    "save_pretrained",
]
