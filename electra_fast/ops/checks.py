"""Checks at the boundary of an op: errors name the op, the argument, what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor

from electra_fast.rng import fresh

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CASTABLE = (torch.float32, torch.bfloat16, torch.float16)  # what autocast casts
INT64 = (torch.int64,)
INT32 = (torch.int32,)
BOOL = (torch.bool,)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in dtypes))


def check(
    op: str,
    name: str,
    value: Tensor,
    dtypes: tuple[torch.dtype, ...],
    shape: tuple[int | None, ...] | None = None,
    like: Tensor | None = None,
) -> None:
    """TypeError unless ``value`` is a tensor of one of ``dtypes``; ValueError unless its shape fits (None: any size)
    and it lies on the device of ``like``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{op}: {name} must be {_names(dtypes)}, got {_names((value.dtype,))}")
    if shape is not None and value.shape != shape and not fits(value.shape, shape):
        expected = ", ".join("*" if size is None else str(size) for size in shape)
        raise ValueError(f"{op}: {name} must have shape [{expected}], got {list(value.shape)}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device} like the other tensors, got {value.device}")


def fits(given: torch.Size, shape: tuple[int | None, ...]) -> bool:
    """Whether a tensor's shape is ``shape``, None standing for any size."""
    if len(given) != len(shape):
        return False
    for size, expected in zip(given, shape):  # noqa: B905 (strict costs as much as the comparison)
        if expected is not None and size != expected:
            return False
    return True


def parameter_dtypes(x: Tensor) -> tuple[torch.dtype, ...]:
    """Parameters have the activations' dtype or float32."""
    return (x.dtype, torch.float32)


def check_cu_seqlens(op: str, name: str, value: Tensor, like: Tensor) -> None:
    """int32 ``[B+1]``; what it holds is checked where it is read."""
    check(op, name, value, INT32, (None,), like)
    if value.shape[0] < 1:
        raise ValueError(f"{op}: {name} must have shape [B+1] and begin with 0, got an empty tensor")


def check_range(op: str, name: str, value: float, low: float, high: float, *, closed: bool = True) -> None:
    """ValueError unless ``low <= value <= high`` (``< high`` if not closed)."""
    if not low <= value <= high or (value == high and not closed):
        raise ValueError(f"{op}: {name} must be in [{low}, {high}{']' if closed else ')'}, got {value}")


def check_rng(op: str, rng: Tensor | None, site: int, like: Tensor) -> None:
    """int64 ``[2]`` = (seed, step) beside the other tensors, and a site that fits a word of the counter."""
    if rng is not None:
        check(op, "rng", rng, INT64, (2,), like)
    if not 0 <= site < 2**32:
        check_range(op, "site", site, 0, 2**32 - 1)


def dropout_rng(op: str, p: float, rng: Tensor | None, site: int, like: Tensor) -> Tensor | None:
    """None without dropout, else the given (seed, step) or a fresh one that follows ``torch.manual_seed``."""
    if not 0.0 <= p < 1.0:
        check_range(op, "dropout_p", p, 0.0, 1.0, closed=False)
    check_rng(op, rng, site, like)
    if p == 0.0:
        return None
    return fresh(like.device) if rng is None else rng


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype autocast casts x to; None where autocast is off, and for float64, which it leaves alone."""
    if not torch._C._is_any_autocast_enabled():
        return None
    kind = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None
