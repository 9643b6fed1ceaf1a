"""Fine-tuning: a pretrained ELECTRA and labelled data to a model for a task, by `transformers`' Trainer on our kernels.

Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {
    "FinetuneOptions": "options",
    "FinetuneResult": "run",
    "TASKS": "task",
    "Task": "task",
    "finetune": "run",
    "resume": "run",
    "task_class": "task",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
