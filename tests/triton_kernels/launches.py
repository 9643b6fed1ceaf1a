"""Launches without a GPU: that each runs the compiled kernel that Triton would have looked up. Fails if one does not.

Triton believes in a driver (benchmarks/bench_triton_host_overhead.py) whose launches are written down.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from triton import knobs
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_triton_host_overhead as bench

from electra_fast import ops
from electra_fast.triton import gelu
from electra_fast.triton import launch as launching
from electra_fast.triton.configurations import Configuration

launched: list[tuple] = []  # what the driver was asked to launch: the compiled kernel and its arguments
looked_up: list[JITFunction] = []  # kernels that Triton looked up


def _launcher(source: object, metadata: object) -> Callable:
    def run(*arguments: object) -> None:
        launched.append((metadata, arguments[:3], [id(x) if isinstance(x, torch.Tensor) else x for x in arguments[9:]]))

    return run


def _watch() -> None:
    bench.pretend()
    bench._Driver.launcher_cls = staticmethod(_launcher)
    run = JITFunction.run

    def look_up(kernel: JITFunction, *arguments, grid, warmup, **options) -> object:
        looked_up.append(kernel)
        return run(kernel, *arguments, grid=grid, warmup=warmup, **options)

    JITFunction.run = look_up


def _made_by(function: Callable[[], object]) -> list[tuple]:
    launched.clear()
    looked_up.clear()
    function()
    return list(launched)


def variants() -> dict[str, tuple[tuple, bool]]:
    """Name -> the arguments of a launch, and whether Triton need not be asked the second time."""
    c, wide, fused = Configuration("", 4, 64), Configuration("", 4, 64, num_warps=8), Configuration("", 4, 64)
    x, y, bias = torch.zeros(1024), torch.empty(1024), torch.zeros(64)

    def case(rows=8, columns=64, x=x, y=y, bias=bias, c=c, block_m=4) -> tuple:
        return gelu.forward_kernel, c, (2, 1), (x, bias, y), (rows,), (columns, block_m, 64)

    return {
        "first": (case(), True),
        "rows": (case(rows=9), True),
        "one row": (case(rows=1), True),
        "rows a multiple of 16": (case(rows=16), True),
        "rows of 64 bits": (case(rows=2**31), False),
        "columns a multiple of 16": (case(columns=48), True),
        "columns not a multiple of 16": (case(columns=63), True),
        "one column": (case(columns=1), True),
        "dtype": (case(x=x.bfloat16(), y=y.bfloat16()), True),
        "dtype of the bias": (case(bias=bias.bfloat16()), True),
        "no bias": (case(bias=None), True),
        "another address": (case(x=x[4:]), True),
        "an odd address": (case(x=x[1:]), False),
        "another odd address": (case(y=y[2:]), False),
        "block": (case(block_m=2), True),
        "warps": (case(c=wide), True),
        "equal configuration": (case(c=fused), True),
    }


def check_variants() -> None:
    """Every variant after every other: the kernel, grid and arguments are those of Triton's own launch."""
    cases = variants()
    order = list(cases) * 3
    random.Random(1).shuffle(order)
    seen: set[str] = set()
    for name in order:
        (kernel, c, grid, tensors, numbers, fixed), usual = cases[name]
        ours = _made_by(lambda: launching.launch(*cases[name][0]))  # noqa: B023
        asked = bool(looked_up)
        assert asked or usual, f"{name}: Triton was not asked"
        assert not (asked and usual and name in seen), f"{name}: Triton was asked again"
        triton = _made_by(lambda: kernel[grid](*tensors, *numbers, *fixed, **c.options))  # noqa: B023
        assert ours == triton, f"{name}: another launch than Triton's"
        assert ours[0][0] is triton[0][0], f"{name}: another kernel than Triton's"
        seen.add(name)


def check_settings() -> None:
    """What is set for all kernels, and a hook, count as they do for Triton."""
    arguments, _ = variants()["first"]
    kernel, c, grid, tensors, numbers, fixed = arguments
    plain = _made_by(lambda: launching.launch(*arguments))[0][0]
    knobs.runtime.debug = True
    debug = _made_by(lambda: launching.launch(*arguments))[0][0]
    assert debug is not plain
    assert debug is _made_by(lambda: kernel[grid](*tensors, *numbers, *fixed, **c.options))[0][0]
    knobs.runtime.debug = False
    called = []
    kernel.add_pre_run_hook(lambda *arguments, **options: called.append(1))
    for _ in range(2):
        launching.launch(*arguments)
    kernel.pre_run_hooks.clear()
    assert called == [1, 1]


def check_ops() -> None:
    """A second call of an op, forward and backward, asks Triton for nothing and launches what the first one did."""

    def kernels(function: Callable, tensors: list[torch.Tensor]) -> list:
        def step() -> None:
            outputs = function(*tensors)
            if tensors:
                torch.autograd.grad(bench.first(outputs).sum(), tensors)

        return [metadata for metadata, *_ in _made_by(step)]

    with ops.use_backend("triton"):
        for op, (function, tensors) in bench.cases().items():
            leaves = [x.clone().requires_grad_() for x in tensors]
            first = kernels(function, leaves)
            assert looked_up
            assert kernels(function, leaves) == first
            assert not looked_up, f"{op}: {looked_up} was looked up again"


if __name__ == "__main__":
    _watch()
    check_variants()
    check_settings()
    check_ops()
