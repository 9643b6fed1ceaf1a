"""Which implementation of an op runs.

Every op has an implementation in some of the backends, all with the arguments of its schema. The first of `BACKENDS`
that can run on the tensors at hand is taken; each of the others says why it is not.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from electra_fast import reference, triton
from electra_fast.registration import Formula

from . import native

OPS = tuple(native.FUNCTIONS)


@dataclass(frozen=True)
class Backend:
    """Implementations by op, and ``missing(op, device type or None, dtypes)``: None or why it cannot run."""

    implementations: Mapping[str, Callable]
    missing: Callable[[str, str | None, tuple[torch.dtype, ...]], str | None]


def _reference_missing(op: str, device: str | None, dtypes: tuple[torch.dtype, ...]) -> str | None:
    return None


_TABLE = {
    "native": Backend(native.implementations, native.missing),
    "triton": Backend(triton.implementations, triton.missing),
    "reference": Backend({op: getattr(reference, name) for op, name in native.FUNCTIONS.items()}, _reference_missing),
}
BACKENDS = tuple(_TABLE)


def register(
    op: str,
    fake: Callable,
    *,
    backward_fake: Callable | None = None,
    differentiable: slice | None = None,
    save: Callable | None = None,
    backward: Callable | None = None,
) -> None:
    """Give an op its fake and, with a backward, its autograd formula, in every backend whose kernels torch cannot see
    through (`electra_fast.registration.Formula`)."""
    formula = Formula(fake, backward_fake, differentiable, save, backward)
    native.register(op, formula)
    triton.register(op, formula)


_forced: dict[str, str | None] = dict.fromkeys(OPS)
_warned: set[tuple[str, str]] = set()


def backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, dict[str, str | None]]:
    """For every op and backend: None if it would run on ``device`` with activations of ``dtype``, else why not.

    The first backend without a reason is the one that runs.
    """
    kind = torch.device(device).type
    return {op: {name: _TABLE[name].missing(op, kind, (dtype,)) for name in BACKENDS} for op in OPS}


@contextlib.contextmanager
def use_backend(name: str, ops: Sequence[str] | None = None) -> Iterator[None]:
    """Force a backend for all ops, or for the named ones, until the block ends (for the whole process, all threads).

    Raises ValueError for an unknown name and RuntimeError, with the reason, where the backend cannot run at all; on
    a device or dtype that it does not serve the op itself raises.
    """
    if name not in BACKENDS:
        raise ValueError(f"use_backend: name must be one of {', '.join(BACKENDS)}, got {name!r}")
    ops = OPS if ops is None else tuple(ops)
    for op in ops:
        if op not in OPS:
            raise ValueError(f"use_backend: ops must be among {', '.join(OPS)}, got {op!r}")
        if (reason := _TABLE[name].missing(op, None, ())) is not None:
            raise RuntimeError(f"use_backend: {name} cannot run {op}: {reason}")
    before = {op: _forced[op] for op in ops}
    _forced.update(dict.fromkeys(ops, name))
    try:
        yield
    finally:
        _forced.update(before)


def forced(op: str) -> str | None:
    """The backend that `use_backend` forces for this op, if any."""
    return _forced[op]


def choose(op: str, device: torch.device, *dtypes: torch.dtype) -> str:
    """The backend that runs ``op`` here with these dtypes of activations; RuntimeError if the forced one cannot."""
    return _choose(op, device.type, dtypes)


def _choose(op: str, kind: str, dtypes: tuple[torch.dtype, ...]) -> str:
    if (name := _forced[op]) is not None:
        if (reason := _TABLE[name].missing(op, kind, dtypes)) is not None:
            raise RuntimeError(f"{op}: backend {name} was asked for and cannot run: {reason}")
        return name
    reasons = []
    for name in BACKENDS:
        reason = _TABLE[name].missing(op, kind, dtypes)
        if reason is None:
            if name == "reference" and not torch.compiler.is_compiling():
                _warn_once(op, kind, reasons)
            return name
        reasons.append(f"{name}: {reason}")
    raise AssertionError("the reference runs everything")


def _warn_once(op: str, device: str, reasons: list[str]) -> None:
    """Tell once for each cause that an op runs in plain PyTorch."""
    cause = (device, reasons[0])
    if cause not in _warned:
        _warned.add(cause)
        warnings.warn(f"{op} runs in plain PyTorch on {device}, slowly ({'; '.join(reasons)})", stacklevel=4)


def run(op: str, args: tuple, device: torch.device, *dtypes: torch.dtype):
    """Call the chosen implementation with the arguments of the op's schema, outside autocast: casts are made by now."""
    kind = device.type
    implementation = _TABLE[_choose(op, kind, dtypes)].implementations[op]
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            return implementation(*args)
    return implementation(*args)
