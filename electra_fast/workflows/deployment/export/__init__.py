"""From a model to files that run without this package: plain `transformers`, ONNX, torch.export, AOTInductor.

`export` loads the model as `transformers` has it, writes the format beside the place where it shall be, loads it again,
compares the two on random and on real inputs, and only then gives it its name. Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {
    "ExportReport": "run",
    "export": "run",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
