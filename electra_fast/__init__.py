"""Pretrain, fine-tune and run ELECTRA fast in PyTorch, and the fused kernels behind it.

Importing this package needs no GPU, no Triton and no compiler, and takes no time: names are loaded when they are first
used.
``electra_fast.backends()`` says, for every op, what would run and why each other backend would not.
"""

from importlib import import_module

__version__ = "0.1.0"

_EXPORTS = {
    "accelerate": "models.accelerate",
    "backends": "ops.backend",
    "use_backend": "ops.backend",
    "ElectraConfig": "models",
    "ElectraForMaskedLM": "models",
    "ElectraForMultipleChoice": "models",
    "ElectraForPreTraining": "models",
    "ElectraForQuestionAnswering": "models",
    "ElectraForSequenceClassification": "models",
    "ElectraForTokenClassification": "models",
    "ElectraForTranslation": "models",
    "ElectraModel": "models",
    "ElectraPretrainingPair": "models",
    "load_pretrained": "models",
    "load_task": "workflows.evaluation.predictor",
    "save_pretrained": "models",
}
_SUBMODULES = ("data", "models", "nn", "ops", "optim", "reference", "rng", "workflows")

__all__ = ["__version__", *_EXPORTS, *_SUBMODULES]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
