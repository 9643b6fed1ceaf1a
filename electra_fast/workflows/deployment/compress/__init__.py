"""From a fine-tuned model to a smaller or faster one: distillation, structured pruning, 8 bits.

Each measures what the model was worth and what it costs before and after. Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {
    "CompressOptions": "options",
    "CompressReport": "run",
    "compress": "run",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
