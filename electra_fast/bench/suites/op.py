"""What the suites of single ops share: forward alone or with backward, dropout on and off, our backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from electra_fast import ops
from electra_fast.bench.case import Absent, Contender

Function = Callable[..., Any]
Build = Callable[[float], Function]  # of the dropout rate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
BYTES = {"float32": 4, "bfloat16": 2}


def forward(function: Function) -> Function:
    """Without autograd."""

    def run(*inputs: Any) -> Any:
        with torch.no_grad():
            return function(*inputs)

    return run


def both_ways(function: Function) -> Function:
    """Forward, then the gradients of every input that wants one; the last input is the output's gradient."""

    def run(*inputs: Any) -> tuple[Tensor, ...]:
        *given, gradient = inputs
        out = function(*given)
        out = out if isinstance(out, Tensor) else out[0]
        leaves = [x for x in given if isinstance(x, Tensor) and x.requires_grad]
        return out, *torch.autograd.grad(out, leaves, gradient)

    return run


def _raised(x: Any) -> Any:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    return x.detach().float().requires_grad_(x.requires_grad)


def in_float32(build: Build, *, backward: bool) -> Callable[[Any], Function]:
    """A factory for `Case.truth`: the same without dropout in float32, whatever the inputs' dtype."""

    def run(*inputs: Any) -> Any:
        raised = [_raised(x) for x in inputs]
        return (both_ways if backward else forward)(build(0.0))(*raised)

    return lambda shared: run


def contender(
    name: str,
    build: Build,
    *,
    dropout: float = 0.0,
    backward: bool = False,
    setting: str = "",
    level: str = "quick",
    ours: bool = False,
    tolerance: float | None = None,
    allocator: str = "",
) -> Contender:
    """A contender whose outputs are compared without dropout. ``build`` makes the function for a rate of dropout."""
    wrap = both_ways if backward else forward

    def make(rate: float) -> Callable[[Any], Function]:
        return lambda shared: wrap(build(rate))

    comparable = make(0.0) if dropout else None
    return Contender(name, make(dropout), setting, comparable, ours, allocator, tolerance=tolerance, level=level)


def compiled(
    name: str, build: Build, *, dropout: float = 0.0, backward: bool = False, mode: str = "", level: str = "default"
) -> Contender:
    """The same through torch.compile, in a mode of its own."""

    def built(rate: float) -> Function:
        torch._dynamo.reset()  # nothing of another contender's shapes
        return torch.compile(build(rate), mode=mode or None, dynamic=False)

    setting = f"mode={mode}" if mode else "default mode"
    return contender(name, built, dropout=dropout, backward=backward, setting=f"{setting}, static shapes", level=level)


def ours(build: Build, *, device: str, dropout: float = 0.0, backward: bool = False) -> list[Contender]:
    """Our op: the backend that is taken by itself, and on a GPU the Triton kernels as well."""
    options = {"dropout": dropout, "backward": backward, "ours": True}
    found = [contender("electra-fast", build, setting="native", **options)]
    if device.startswith("cuda"):

        def triton(rate: float) -> Function:
            function = build(rate)

            def run(*inputs: Any) -> Any:
                with ops.use_backend("triton"):
                    return function(*inputs)

            return run

        found.append(contender("electra-fast triton", triton, setting="triton", **options))
    return found


def absent(module: str, function: Callable[[], Any]) -> Any:
    """``function()``, which imports an optional peer; Absent with what is missing if it cannot."""
    try:
        return function()
    except (ImportError, OSError) as error:
        raise Absent(f"{module} is not installed ({str(error).splitlines()[0]})") from None
