"""Pretraining: ELECTRA's replaced-token detection on a prepared corpus, from the first step to a Hugging Face model."""

from .evaluate import Evaluation
from .loop import PretrainResult
from .options import PretrainOptions
from .run import pretrain, resume
from .show import ReplacedTokens, find_replaced

__all__ = ["Evaluation", "PretrainOptions", "PretrainResult", "ReplacedTokens", "find_replaced", "pretrain", "resume"]
