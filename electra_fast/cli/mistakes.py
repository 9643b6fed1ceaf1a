"""Mistakes in the words of the command line: one line each, with the options spelled as they are typed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import Any, get_args

import typer
from typer.models import OptionInfo

from electra_fast.errors import ElectraError

# Of click, or of the copy of it that typer has carried since 0.26.
_click = import_module(typer.BadParameter.__module__)
UsageError: type[Exception] = _click.UsageError
_CLASS = re.compile(r"(^|: )[A-Z][A-Za-z]+: (?=\w+ must )")
_KINDS = {int: "a whole number", float: "a number"}

Command = Callable[..., None]


class FileMistake(ElectraError):
    """A mistake in a file of options: it keeps the names that the options have there."""


def flags(command: Command) -> dict[str, str]:
    """The long spelling of a command's options by the name of the parameter."""
    found = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        _, declared = get_args(parameter.annotation)
        if isinstance(declared, OptionInfo):
            # Typer takes what comes first for the default, until it meets Annotated.
            spellings = [text for text in (declared.default, *(declared.param_decls or ())) if isinstance(text, str)]
            long = [text for text in spellings if text.startswith("--")]
            found[name] = long[0].split("/")[0] if long else f"--{name.replace('_', '-')}"
    return found


def in_options(message: str, spellings: Mapping[str, str]) -> str:
    """A library's message with options for names of fields, and without the class that they are fields of.

    A name that is also a word (seed, data) is taken for an option only where the message begins with it.
    """
    message = _CLASS.sub(r"\1", message)
    names = "|".join(sorted(spellings, key=len, reverse=True))
    if not names:
        return message
    message = re.sub(rf"^({names})(?=:| must | is | was | and )", lambda match: spellings[match[1]], message)
    inside = rf"(?<![\w./'\"-])({names})(?![\w/'\"-]|\.\w)"
    return re.sub(inside, lambda match: spellings[match[1]] if "_" in match[1] else match[1], message)


def usage_message(error: Any, arguments: Sequence[str], commands: Mapping[str, Command]) -> str:
    """What is wrong with a command line, in one line: the option, what was expected, what was given, what is nearest.

    Args:
        error: a `UsageError`.
        arguments: the command line behind the program's name.
        commands: the functions behind the commands.
    """
    context = error.ctx
    if context is not None and context.parent is None:
        name = command_name(arguments)
        if name is not None and name not in commands:
            return f"there is no command {name!r}: {_nearest(name, commands)}"
    if isinstance(error, _click.NoSuchOption) and context is not None:
        known = [text for option in context.command.params for text in (*option.opts, *option.secondary_opts)]
        long = [text for text in (*known, "--help") if text.startswith("--")]
        more = f"see {context.command_path} --help"
        return f"{context.command_path} has no option {error.option_name}: {_nearest(error.option_name, long, more)}"
    parameter = getattr(error, "param", None)
    if parameter is not None and context is not None and context.info_name in commands:
        written = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
        declared = inspect.signature(commands[context.info_name], eval_str=True).parameters[parameter.name].annotation
        if isinstance(error, _click.MissingParameter):
            return f"{context.command_path} needs {written}: {get_args(declared)[1].help}"
        expected, choices = _expected(declared)
        if expected:
            return f"{written} must be {expected}" + _given(_value(parameter.opts, arguments), choices)
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"


def command_name(arguments: Sequence[str]) -> str | None:
    """The command of a command line, whether there is one of that name or not."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _expected(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """In words, what an option takes, and its choices if it has any; nothing if any text will do."""
    kind, declared = get_args(annotation)
    kinds = tuple(inner for outer in get_args(kind) or (kind,) for inner in get_args(outer) or (outer,))
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            choices = tuple(choice.value for choice in kind)
            return f"{', '.join(choices[:-1])} or {choices[-1]}", choices
    words = [words for kind, words in _KINDS.items() if kind in kinds]
    if not words:
        return "", ()
    low, high = declared.min, declared.max
    limits = f" from {low:g} " + ("on" if high is None else f"to {high:g}") if low is not None else ""
    return words[0] + limits, ()


def _value(spellings: Iterable[str], arguments: Sequence[str]) -> str | None:
    """The last value given for an option."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, behind = argument.partition("=")
        if name in spellings:
            value = behind if equals else following
    return value


def _given(value: str | None, choices: Sequence[str]) -> str:
    if value is None:
        return ""
    near = difflib.get_close_matches(value, choices, n=1)
    return f", got {value!r}" + (f": did you mean {near[0]!r}?" if near else "")


def _nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    bare = {text.lstrip("-"): text for text in known}
    near = difflib.get_close_matches(name.lstrip("-"), bare, n=1)
    return f"did you mean {bare[near[0]]}?" if near else otherwise or f"there are {', '.join(bare)}"
