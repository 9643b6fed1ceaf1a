"""Optional dependencies: imported where they are used; an absent one is named with the extra that brings it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from electra_fast.errors import ConfigError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: its name, dots included.
        extra: of this package's extras, the one that it belongs to.
        what: what needs it, as the sentence begins: "fine-tuning".

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.split(".")[0] == "electra_fast":
            raise
        raise ConfigError(f"{what} needs {missing.name}: pip install 'electra-fast[{extra}]'") from None
