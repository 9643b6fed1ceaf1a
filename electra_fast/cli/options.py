"""A dataclass of options as the parameters of a command."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


def parameters(
    table: type,
    own: Mapping[str, tuple[Any, Any]],
    *,
    kinds: Mapping[str, Any],
    short: Mapping[str, str],
    panels: Mapping[str, str],
    left_out: frozenset[str] = frozenset(),
) -> Iterator[inspect.Parameter]:
    """A command's parameters: its own, then one for each field of ``table``, without a value unless given.

    Args:
        own: type and typer's declaration by name.
        kinds: of fields that are read as another type than they have. short: their one-letter spellings. panels:
            headings of the help, where they differ from the fields'. left_out: fields that are no options.
    """
    found = dict(own)
    hints = get_type_hints(table)
    for field in dataclasses.fields(table):
        if field.name in left_out:
            continue
        kind = kinds.get(field.name, hints[field.name])
        if field.metadata["choices"]:
            kind = Enum(field.name, {choice: choice for choice in field.metadata["choices"]}, type=str)
        flag = f"--{field.name.replace('_', '-')}"
        flags = [f"{flag}/--no-{flag[2:]}" if kind in (bool, bool | None) else flag, *field.metadata["flags"]]
        if field.name in short:
            flags.append(short[field.name])
        default = "" if field.default in (None, "") else f" [dim]\\[default: {_default(field.default)}][/]"
        panel = field.metadata["panel"]
        option = typer.Option(
            *flags,
            help=field.metadata["help"] + default,
            rich_help_panel=panels.get(panel, panel),
            show_default=False,
        )
        found[field.name] = (kind | None, option)
    for name, (kind, option) in found.items():
        if isinstance(option, typer.models.ArgumentInfo):
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option])
            continue
        default = False if kind is bool else None
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given on the command line, as plain values."""
    return {name: plain(value) for name, value in values.items() if value is not None and value != []}


def plain(value: Any) -> Any:
    """A value of the command line as the dataclass has it: no Enum, no Path."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _default(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
