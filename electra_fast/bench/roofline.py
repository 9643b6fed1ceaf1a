"""The roof of this machine, measured in the run whose figures it is for: copy bandwidth, and products by dtype.

A roof is the best that any known way reaches, and the record says which: on the CPU torch's products, oneDNN's on
prepacked weights and our own packed products (inside the encoder's feed-forward, whose other work counts against it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from electra_fast.matrix_peak import square_product

from .rounds import timer

_COPY_BYTES = 256 << 20
_SIZES = (1024, 2048, 4096)
_PREPACKED = ((2048, 768, 3072), (4096, 1024, 1024))  # rows, in, out: the encoders' kind of products
_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


@dataclass(frozen=True)
class Roof:
    """``copy``: GB/s, read and written. ``matrix``: GFLOP/s by dtype; ``how``: by dtype, what reached it."""

    copy: float
    matrix: dict[str, float]
    how: dict[str, str]

    def share(self, bound: str, dtype: str, rate: float) -> float:
        """``rate`` (GFLOP/s or GB/s) over the roof; 0 where there is none."""
        roof = self.copy if bound == "copy" else self.matrix.get(dtype, 0.0) if bound == "matrix" else 0.0
        return rate / roof if roof else 0.0


def measure(device: str, seconds: float = 0.4, on_step: Callable[[str], None] = lambda text: None) -> Roof:
    """Measure for about ``seconds`` a candidate; ``on_step`` is told what is being measured."""
    on_step("copy bandwidth")
    copy = 2 * _copy_bytes(device) / _best(_copy(device), device, seconds) / 1e9
    matrix, how = {}, {}
    for dtype in _DTYPES:
        name = str(dtype).removeprefix("torch.")
        on_step(f"{name} products")
        best = max(_products(device, dtype, seconds), default=(0.0, ""))
        if best[0]:
            matrix[name], how[name] = best
    return Roof(copy, matrix, how)


def _copy_bytes(device: str) -> int:
    return _COPY_BYTES * (4 if device.startswith("cuda") else 1)


def _copy(device: str) -> Callable[[], object]:
    source = torch.ones(_copy_bytes(device), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _best(run: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of the fastest call."""
    time_calls, fastest, begin = timer(device), float("inf"), time.monotonic()
    run()
    while True:
        fastest = min(fastest, time_calls(run, [()], 1, False))
        if time.monotonic() - begin > seconds:
            return fastest


def _products(device: str, dtype: torch.dtype, seconds: float) -> Iterator[tuple[float, str]]:
    """GFLOP/s, and of what."""
    for name, flops, make in _candidates(device, dtype):
        try:
            run = make()
            run()
        except (RuntimeError, NotImplementedError, AttributeError):  # not for this dtype, device or build of torch
            continue
        yield flops / _best(run, device, seconds) / 1e9, name


def _candidates(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float, Callable[[], Callable[[], object]]]]:
    cuda = device.startswith("cuda")
    for size in (4096, 8192) if cuda else _SIZES[: 2 if dtype is torch.float32 else 3]:
        yield f"torch {size}³", 2.0 * size**3, lambda size=size: square_product(device, dtype, size)
    if cuda:
        return
    for shape in _PREPACKED:
        flops = 2.0 * shape[0] * shape[1] * shape[2]
        yield f"oneDNN prepacked {'×'.join(map(str, shape))}", flops, lambda s=shape: _prepacked(dtype, *s)
    rows, hidden, wide = 4096, 768, 3072
    flops = 2.0 * rows * (4 * hidden * hidden + 2 * hidden * wide)
    yield "our packed layer, 768 wide", flops, lambda: _our_layer(dtype, rows, hidden, wide)


def _prepacked(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> Callable[[], object]:
    if dtype is torch.int8:
        raise NotImplementedError("torch's prepacked product of int8 needs quantised tensors")
    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to_mkldnn(), rows)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _our_layer(dtype: torch.dtype, rows: int, hidden: int, wide: int) -> Callable[[], object]:
    """One encoder layer on sequences of one token, where attention costs nothing; its products are counted."""
    from electra_fast.ops import LayerParameters, encoder, pack_layers

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape) * 0.02

    n, i = hidden, wide
    shapes = ((3 * n, n), (3 * n,), (n, n), (n,), (n,), (n,), (i, n), (i,), (n, i), (n,), (n,), (n,))
    layers = pack_layers([LayerParameters(*(weight(*shape) for shape in shapes))], n // 64, products=dtype)
    x = torch.randn(rows, n, dtype=torch.float32 if dtype is torch.float32 else torch.bfloat16)
    cu_seqlens = torch.arange(rows + 1, dtype=torch.int32)
    return lambda: encoder(x, cu_seqlens, 1, layers)
