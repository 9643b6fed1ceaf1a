"""Pretraining: ELECTRA's replaced-token detection on a prepared corpus, from the first step to a Hugging Face model.

Names are loaded when first used.
"""

from importlib import import_module

_EXPORTS = {
    "Evaluation": "evaluate",
    "PretrainOptions": "options",
    "PretrainResult": "loop",
    "ReplacedTokens": "show",
    "RunStatus": "status",
    "find_replaced": "show",
    "pretrain": "run",
    "resume": "run",
    "run_status": "status",
    "write_report": "report",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
