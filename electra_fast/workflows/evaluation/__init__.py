"""Fine-tuned models at work: prediction and evaluation. Names are loaded when first used."""

from importlib import import_module

_EXPORTS = {
    "Evaluation": "results",
    "ModelResult": "results",
    "Predictor": "predictor",
    "evaluate": "run",
    "load_task": "predictor",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
