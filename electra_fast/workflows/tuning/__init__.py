"""Searching hyperparameters of fine-tuning: optuna's samplers and pruners over runs of `finetune`.

Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {"TuneOptions": "options", "TuneResult": "run", "tune": "run"}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
