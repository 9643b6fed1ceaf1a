"""Options as fields of a dataclass: what the command line, a file and Python call by the same names."""

from __future__ import annotations

import dataclasses
from typing import Any

from electra_fast.errors import ConfigError


def option(
    panel: str, help: str, default: Any = None, *, flags: tuple[str, ...] = (), choices: tuple[str, ...] = ()
) -> Any:
    """A field that is also an option: ``flags`` are further spellings on the command line."""
    metadata = {"panel": panel, "help": help, "flags": flags, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(options: Any) -> None:
    """ConfigError for the first field whose value is set and not among its choices."""
    for field in dataclasses.fields(options):
        choices, value = field.metadata["choices"], getattr(options, field.name)
        if choices and value is not None and value not in choices:
            raise ConfigError(f"{field.name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value!r}")
