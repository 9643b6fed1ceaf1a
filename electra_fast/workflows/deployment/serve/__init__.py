"""Serving a fine-tuned model over HTTP: ``serve(ServeOptions(model))``. Names are loaded when first used."""

from electra_fast.extras import require

_EXPORTS = {"ServeOptions": "options", "serve": "server"}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(require(f"{__name__}.{_EXPORTS[name]}", "serve", "serving"), name)


def __dir__() -> list[str]:
    return __all__
