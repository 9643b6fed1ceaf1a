"""The search space: which options of fine-tuning are searched, and over what.

One notation for the command line (``--search learning_rate=log:1e-5:5e-4``) and for a TOML file
(``learning_rate = "log:1e-5:5e-4"``, ``batch_size = [16, 32]``):

    16,32,64            one of these values
    int:2:5             a whole number from 2 to 5; int:2:10:4 in steps of 4
    float:0:0.3         a number from 0 to 0.3; float:0:0.3:0.1 in steps of 0.1
    log:1e-5:5e-4       a number from 1e-5 to 5e-4, uniform in its logarithm (whole for an option that is whole)
"""

from __future__ import annotations

import itertools
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from electra_fast.errors import ConfigError
from electra_fast.models.fields import check_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NOTATION = "write 16,32 for values, or int:LOW:HIGH, float:LOW:HIGH, log:LOW:HIGH (int and float with :STEP if wanted)"
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def parse_assignments(given: Iterable[str]) -> dict[str, str]:
    """``["epochs=int:2:5", …]`` as what is searched by name. ConfigError if one is no assignment or comes twice."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, written = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not written.strip():
            raise ConfigError(f"search must be NAME=VALUES, got {text!r}: {_NOTATION}")
        if name in found:
            raise ConfigError(f"search names {name} twice: {found[name]} and {written}")
        found[name] = written.strip()
    return found


def read_space(path: str | Path) -> dict[str, Any]:
    """What is searched, from a TOML file. ConfigError, naming the file, if it is none."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the search space {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None


def build_space(written: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Distributions by option.

    Args:
        written: by option, what is searched: text in the notation above, or a list of values.
        kinds: the declared type of every option that can be searched.

    Raises:
        ConfigError: an unknown option (the known ones are named), or text that is not in the notation.
    """
    check_keys("search", written, kinds)
    return {name: _distribution(name, text, _scalar(kinds[name])) for name, text in written.items()}


def ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    """The values that show whether a distribution is legal: its ends, or all its choices."""
    return getattr(distribution, "choices", None) or (distribution.low, distribution.high)


def grid(space: Mapping[str, BaseDistribution], points: int) -> list[dict[str, Any]]:
    """Every combination of the values; a range without steps is cut into ``points`` values, both ends among them."""
    values = [_values(distribution, points) for distribution in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]


def as_text(distribution: BaseDistribution) -> str:
    """A distribution in the notation above."""
    if isinstance(distribution, CategoricalDistribution):
        return ",".join(map(str, distribution.choices))
    if distribution.log:
        return f"log:{distribution.low:g}:{distribution.high:g}"
    kind, plain = ("int", 1) if isinstance(distribution, IntDistribution) else ("float", None)
    step = "" if distribution.step == plain else f":{distribution.step:g}"
    return f"{kind}:{distribution.low:g}:{distribution.high:g}{step}"


def _scalar(hint: Any) -> type:
    """The plainest type of a declared one: ``int | None`` is int."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def _distribution(name: str, written: Any, kind: type) -> BaseDistribution:
    if isinstance(written, list) and written:
        return CategoricalDistribution([_value(name, str(value), kind) for value in written])
    if not isinstance(written, str):
        raise ConfigError(f"search: {name} must be a list of values or text, got {written!r}: {_NOTATION}")
    law, *bounds = written.split(":")
    if law not in ("int", "float", "log"):
        return CategoricalDistribution([_value(name, text.strip(), kind) for text in written.split(",")])
    if kind not in (int, float) or (law == "float" and kind is int):
        raise ConfigError(f"search: {name} is no option for {law}:…, got {written!r}: it takes {_kind(kind)}")
    whole = law == "int" or kind is int
    if not 2 <= len(bounds) <= (2 if law == "log" else 3):
        raise ConfigError(f"search: {name} needs a low and a high end, got {written!r}: {_NOTATION}")
    low, high, *steps = (_value(name, text, int if whole else float) for text in bounds)
    if not low < high:
        raise ConfigError(f"search: the low end of {name} must be below its high end, got {written!r}")
    if law == "log" and low <= 0:
        raise ConfigError(f"search: the low end of {name} must be above 0 for log, got {written!r}")
    if steps and not 0 < steps[0] <= high - low:
        raise ConfigError(f"search: the step of {name} must be above 0 and fit between its ends, got {written!r}")
    if whole:
        return IntDistribution(low, high, log=law == "log", step=steps[0] if steps else 1)
    if steps:  # optuna warns if the high end is not reached
        high = float(f"{low + math.floor((high - low) / steps[0] + 1e-9) * steps[0]:.12g}")
    return FloatDistribution(low, high, log=law == "log", step=steps[0] if steps else None)


def _value(name: str, text: str, kind: type) -> Any:
    try:
        value = _WORDS[text.lower()] if kind is bool else kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise ConfigError(f"search: {name} takes {_kind(kind)}, got {text!r}: {_NOTATION}") from None


def _kind(kind: type) -> str:
    return {bool: "yes or no", int: "whole numbers", float: "numbers", str: "words"}[kind]


def _values(distribution: BaseDistribution, points: int) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    low, high = distribution.low, distribution.high
    if distribution.log:
        values = [low * (high / low) ** (i / (points - 1)) for i in range(points)]
    elif distribution.step is not None:
        values = [low + i * distribution.step for i in range(1 + round((high - low) / distribution.step))]
    else:
        values = [low + (high - low) * i / (points - 1) for i in range(points)]
    if isinstance(distribution, IntDistribution):
        return sorted({min(high, max(low, round(value))) for value in values})
    return [min(high, max(low, float(f"{value:.6g}"))) for value in values]


optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report every trial, which the study does in its words
