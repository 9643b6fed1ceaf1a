"""Options in a TOML file: read with ``--config``, and written beside every run as ``config.toml`` to repeat it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_fast.errors import ConfigError
from electra_fast.files import write_text

from .options import PretrainOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_config(path: str | Path, table: type = PretrainOptions) -> dict[str, Any]:
    """The options of a TOML file by name, checked.

    Args:
        table: the dataclass whose fields they are.

    Raises:
        ConfigError: no such file, not TOML, or an unknown or ill-typed key; the message names the file.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    try:
        table.from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return values


def write_config(
    path: str | Path, options: Mapping[str, Any], comment: str = "", table: type = PretrainOptions
) -> None:
    """Write options as TOML, under the headings and in the order of the command line's help (``table``'s fields)."""
    lines = [f"# {line}" for line in comment.splitlines()]
    panel = None
    for field in dataclasses.fields(table):
        if field.name not in options:
            continue
        if field.metadata["panel"] != panel:
            panel = field.metadata["panel"]
            lines += ["", f"# {panel}"]
        lines.append(f"{field.name} = {_toml(options[field.name])}")
    write_text(path, "\n".join(lines).lstrip("\n") + "\n")


def _toml(value: str | float | bool | list) -> str:
    """A value in TOML: JSON's notation of strings, booleans, numbers and lists of them is TOML's, too."""
    return json.dumps(value, ensure_ascii=False)
