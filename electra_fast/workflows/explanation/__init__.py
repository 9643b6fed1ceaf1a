"""Why a model says what it says of one text: token attributions and attention, as numbers and as one HTML page.

Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {
    "Attribution": "gradients",
    "Explanation": "run",
    "Reason": "run",
    "attention_probabilities": "attention",
    "explain": "run",
    "integrated_gradients": "gradients",
    "write_page": "view",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
