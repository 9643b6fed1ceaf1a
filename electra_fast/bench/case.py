"""What is compared: a case, its contenders, and whether their outputs are the same.

A contender is a factory, so that building it (weights, compilation) is neither timed nor done where it is not asked
for; one that cannot be built says why by raising `Absent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LEVELS = ("quick", "default", "full")  # of a case: in which selections it is, from the smallest one on
_OUTLIER = 50  # a single value may be this many times further off, in units of the output's root mean square


class Absent(Exception):
    """A contender that is not on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes:
        setting: what it runs with, for the record: its best honest setting.
        make: takes what the case's ``setup`` gave; returns what is timed, a function of the case's inputs.
        comparable: the same for the check of outputs, where what is timed draws random numbers of its own.
        ours: whether it is this package.
        allocator: "" runs in this process, whatever it has. The others run in a process of their own: "system" has the
            C library's as it comes, untouched by what other contenders have freed; "kept" is told to keep what is
            freed, as `electra-fast pretrain` tells it; "tcmalloc" is another library's.
        tolerance: of the relative error, where it is not the case's (8-bit products).
        level: the smallest selection that it is part of.
    """

    name: str
    make: Callable[[Any], Callable[..., Any]]
    setting: str = ""
    comparable: Callable[[Any], Callable[..., Any]] | None = None
    ours: bool = False
    allocator: str = ""
    tolerance: float | None = None
    level: str = "quick"


@dataclass(frozen=True)
class Case:
    """One thing to compute, in one shape and precision, on one device.

    Attributes:
        setup: makes what all contenders share (weights); called once.
        inputs: fresh random inputs, of what ``setup`` gave.
        contenders: the first that runs here is the truth that the others are compared with, unless there is ``truth``.
        truth: a factory like a contender's, of what is compared with but not timed: the work in higher precision.
        flops, bytes: of the work itself: products' operations; what has to be read and written at least once.
        tokens: processed a call, for tokens/s.
        tolerance: of `relative_error`.
        select: outputs and inputs to the tensors that must agree.
        cold: rotate through inputs larger than the last-level cache.
        memory: whether peak memory says something about it.
        level: the smallest selection that it is part of.
    """

    suite: str
    name: str
    dtype: str
    contenders: tuple[Contender, ...]
    inputs: Callable[[Any], tuple]
    setup: Callable[[], Any] = field(default=lambda: None)
    device: str = "cpu"
    shape: dict[str, int | float | str] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0
    tokens: int = 0
    tolerance: float = 1e-4
    select: Callable[[Any, tuple], list[Tensor]] | None = None
    truth: Callable[[Any], Callable[..., Any]] | None = None
    cold: bool = False
    memory: bool = True
    level: str = "default"

    @property
    def bound(self) -> str:
        """The roof it is measured against: "matrix" or "copy", or "" for neither."""
        return "matrix" if self.flops else "copy" if self.bytes else ""

    def outputs(self, result: Any, inputs: tuple) -> list[Tensor]:
        """What of a result has to agree between contenders."""
        if self.select is not None:
            return self.select(result, inputs)
        return [result] if isinstance(result, Tensor) else list(result)


def relative_error(outputs: list[Tensor], truth: list[Tensor]) -> float:
    """``max over tensors of ‖a - b‖ / ‖b‖``; infinite where shapes differ or a value is not finite.

    A single value far off counts as well: the norm alone would not see one wrong row in thousands.
    """
    if len(outputs) != len(truth):
        return float("inf")
    worst = 0.0
    for a, b in zip(outputs, truth, strict=True):
        if a.shape != b.shape:
            return float("inf")
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        difference, scale = a - b, b.norm()
        if not bool(torch.isfinite(a).all()):
            return float("inf")
        if scale == 0:
            worst = max(worst, 0.0 if difference.norm() == 0 else float("inf"))
            continue
        outlier = difference.abs().max() * b.numel() ** 0.5 / scale / _OUTLIER
        worst = max(worst, float(difference.norm() / scale), float(outlier))
    return worst


def within(level: str, wanted: str) -> bool:
    """Whether what is part of ``level`` and all larger selections is part of ``wanted``."""
    return LEVELS.index(level) <= LEVELS.index(wanted)


def find(cases: list[Case], name: str) -> Case:
    """The case of that name."""
    for case in cases:
        if case.name == name:
            return case
    raise KeyError(f"there is no case {name!r}: there are {', '.join(case.name for case in cases)}")
