"""What every launcher needs: launches, the tensors' device made current, and the arithmetic of grids."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from .configurations import Configuration
from .registration import INTERPRETED

_HERE = contextlib.nullcontext()
_compiled: dict[tuple, CompiledKernel] = {}
_MOST_COMPILED = 4096  # entries; a model makes some dozens


def on(device: torch.device) -> contextlib.AbstractContextManager:
    """Make ``device`` current while kernels are launched: Triton launches on the current device, not the tensors'."""
    if device.index is None or device.index == torch.cuda.current_device():  # None: the CPU, in tests
        return _HERE
    return torch.cuda.device(device)


def launch(
    kernel: JITFunction,
    c: Configuration,
    grid: tuple[int, ...],
    tensors: tuple[Tensor | None, ...],
    numbers: tuple[float, ...],
    fixed: tuple[float, ...],
) -> None:
    """``kernel[grid](*tensors, *numbers, *fixed, **c.options)``, with Triton's look-up of the compiled kernel, 6 to
    14 µs, once for each kind of arguments.

    numbers: floats, and integers listed in the kernel's ``do_not_specialize``. fixed: constants, and integers that
    Triton specialises. Both by position; not empty.

    Why the same kernel runs. Triton compiles for a tensor's dtype and whether its address is a multiple of 16, for the
    type of a number (of an integer: of how many bits), for an integer that it specialises besides whether it is 1 or a
    multiple of 16, for the constants and the options. Here dtypes, types of numbers, ``fixed`` (by value), the
    configuration and the device must be equal; and a call with an address that is no multiple of 16, or an integer
    that is no int32, is left to Triton. So are kernels with hooks, and AMD's GPUs, for which it also asks how large a
    tensor is.

    What a launch that is made again does not ask, and Triton would: whether a constant of a kernel's module has been
    bound anew, and ours never are; and whether the compiler is set otherwise than when the process first launched the
    kernel (``knobs.compilation``, its environment variables, a hook between its stages), but for the two settings in
    the key. Set the compiler before the first launch.
    """
    if INTERPRETED or torch.version.hip is not None:
        kernel[grid](*tensors, *numbers, *fixed, **c.options)
        return
    kinds, addresses = [], 0
    for x in tensors:
        if x is None:
            kinds.append(None)
        else:
            kinds.append(x.dtype)
            addresses |= x.data_ptr()
    usual = not addresses & 15 and max(numbers) < 2**31 and min(numbers) >= -(2**31) and not kernel.pre_run_hooks
    settings = knobs.runtime.debug, knobs.compilation.instrumentation_mode
    key = (id(kernel), c, fixed, tensors[0].device, settings, *kinds, *map(type, numbers))
    if usual and (compiled := _compiled.get(key)) is not None:
        compiled[(*grid, 1, 1)](*tensors, *numbers, *fixed)
        return
    compiled = kernel[grid](*tensors, *numbers, *fixed, **c.options)
    if usual and compiled is not None and len(_compiled) < _MOST_COMPILED:
        _compiled[key] = compiled


def divide_up(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least ``n`` and ``least``: the size of a block that holds n things."""
    return max(least, 1 << max(n - 1, 0).bit_length())
