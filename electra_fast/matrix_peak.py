"""The fastest matrix product of a device, measured in a fraction of a second: what "MFU" is a share of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIZES = (1024, 2048, 4096, 8192)
_CALLS = {"cuda": 8}  # before the host waits for the device; 1 where it does the work itself


@dataclass(frozen=True)
class MatrixPeak:
    """``flops``: operations a second, NaN if nothing could be measured; ``how``: of what, or why not."""

    flops: float
    how: str

    def __str__(self) -> str:
        if math.isnan(self.flops):
            return f"the matrix peak is unknown ({self.how})"
        return f"matrix peak {self.flops / 1e12:.3g} TFLOP/s ({self.how})"


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.6) -> MatrixPeak:
    """The best of square products, of growing size as long as the next fits into ``seconds``.

    float32 is multiplied as ``torch.set_float32_matmul_precision`` says, as in training.
    """
    name = str(dtype).removeprefix("torch.")
    best, how, end = 0.0, "", time.perf_counter() + seconds
    calls = _CALLS.get(device.type, 1)
    for size in _SIZES:
        flops = 2.0 * size**3 * calls
        if best and time.perf_counter() + 2 * flops / best > end:  # the first call, and one to be timed
            break
        try:
            run = square_product(device, dtype, size)
            run()
            taken = [_seconds(run, device, calls)]
            while len(taken) < 8 and time.perf_counter() + taken[-1] < end:
                taken.append(_seconds(run, device, calls))
        except (RuntimeError, NotImplementedError) as error:  # no products of this dtype, or no memory left for them
            if not best:
                return MatrixPeak(math.nan, f"no {name} product: {str(error).partition(chr(10))[0]}")
            break
        if flops / min(taken) > best:
            best, how = flops / min(taken), f"torch's {name} product of {size}³, measured"
    return MatrixPeak(best, how)


def square_product(device: torch.device | str, dtype: torch.dtype, size: int) -> Callable[[], object]:
    """Multiplies two matrices of ``size`` squared; int8 into int32."""
    if dtype is torch.int8:
        a, b = (torch.randint(-127, 128, (size, size), dtype=dtype, device=device) for _ in range(2))
        return lambda: torch._int_mm(a, b)
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _seconds(run: Callable[[], object], device: torch.device, calls: int) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
