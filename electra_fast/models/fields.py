"""Reading a frozen dataclass from a mapping (a TOML table, a config.json, keyword arguments), checked key by key.

Every mistake is a `ConfigError` of one line: an unknown key suggests the nearest name, a value names its key, the type
that was expected and what was given.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from electra_fast.errors import ConfigError


def check_keys(owner: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """ConfigError, with the nearest known name, for the first of ``keys`` that is not known."""
    known = sorted(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{owner} has no option {key!r}: {hint}")


def check_types(config: Any) -> None:
    """ConfigError for the first field whose value is not of the field's declared type; an int passes for a float."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not _matches(value, hints[field.name]):
            raise ConfigError(
                f"{type(config).__name__}: {field.name} must be {_name(hints[field.name])}, "
                f"got {value!r} ({type(value).__name__})"
            )


def check_at_least(config: Any, minimum: float, *names: str) -> None:
    """ConfigError for the first named field that is set and below ``minimum``."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= minimum:
            raise ConfigError(f"{type(config).__name__}: {name} must be at least {minimum}, got {value}")


def check_probability(config: Any, *names: str, closed: bool = False) -> None:
    """ConfigError for the first named field that is set and outside [0, 1) ([0, 1] if closed)."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (0.0 <= value < 1.0 or (closed and value == 1.0)):
            raise ConfigError(f"{type(config).__name__}: {name} must be in [0, 1{']' if closed else ')'}, got {value}")


def plain_dict(config: Any) -> dict[str, Any]:
    """The fields as a dict of plain values, nested dataclasses as nested dicts."""
    return dataclasses.asdict(config)


def from_mapping(cls: type, values: Mapping[str, Any]) -> Any:
    """``cls(**values)`` with `check_keys` first."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{cls.__name__} must be a table of options, got {values!r} ({type(values).__name__})")
    check_keys(cls.__name__, values, (field.name for field in dataclasses.fields(cls)))
    return cls(**values)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _matches(value: Any, hint: Any) -> bool:
    for option in _alternatives(hint):
        kind = typing.get_origin(option) or option
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return True
        if isinstance(value, kind) and not (kind is not bool and isinstance(value, bool)):
            return True
    return False


def _name(hint: Any) -> str:
    kinds = (typing.get_origin(option) or option for option in _alternatives(hint))
    return " or ".join("none" if kind is types.NoneType else kind.__name__ for kind in kinds)
