"""Layer norm of a residual sum with bias and dropout: what ends every block of an encoder."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.bench.case import Case
from electra_fast.bench.peers import norms

from .op import BYTES, DTYPES, TOLERANCE, Function, compiled, contender, in_float32, ours

EPS = 1e-12


def _torch(dropout: float) -> Function:
    def run(x: Tensor, residual: Tensor, x_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        summed = residual + F.dropout(x + x_bias, dropout)
        return F.layer_norm(summed, weight.shape, weight, bias, EPS)

    return run


def _ours(dropout: float, device: str) -> Function:
    state = rng.make(1, device=device) if dropout else None

    def run(x: Tensor, residual: Tensor, x_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options = {"x_bias": x_bias, "residual": residual, "eps": EPS, "dropout_p": dropout, "rng": state}
        return ops.layer_norm(x, weight, bias, **options)

    return run


def _inputs(rows: int, columns: int, dtype: torch.dtype, device: str, backward: bool) -> tuple:
    made = [torch.randn(rows, columns, device=device, dtype=dtype) for _ in range(2)]
    made += [torch.randn(columns, device=device, dtype=dtype) for _ in range(3)]
    if not backward:
        return tuple(made)
    return (*(x.requires_grad_() for x in made), torch.randn(rows, columns, device=device, dtype=dtype))


def _case(rows: int, columns: int, dtype: str, dropout: float, backward: bool, device: str, level: str) -> Case:
    options = {"dropout": dropout, "backward": backward}
    peers = [contender(p.name, p.build, setting=p.setting, **options) for p in norms.peers(device, dropout, EPS)]
    direction = "forward+backward" if backward else "forward"
    on_cpu = device == "cpu"
    # torch sums the gradients of bias and weight in bfloat16: 12 % off over 16,384 rows, which its row says.
    loose = 0.3 if dtype == "bfloat16" and backward and on_cpu else None
    # 10 to 50 MB of results a call: with the allocator's usual setting most of the time goes into new pages, and in a
    # shared process it depends on what the others have freed how much that is.
    kept = [
        contender("torch, memory kept", _torch, tolerance=loose, allocator="kept", level="default", **options),
        contender(
            "electra-fast, memory kept", lambda rate: _ours(rate, device), ours=True, allocator="kept", level="default",
            **options,
        ),
    ]  # fmt: skip
    contenders = (
        contender("torch", _torch, setting="add, dropout, add, F.layer_norm", tolerance=loose, **options),
        *ours(lambda rate: _ours(rate, device), device=device, **options),
        compiled("torch.compile", _torch, **options),
        *peers,
        *(kept if on_cpu else ()),
    )
    return Case(
        suite="layer_norm",
        name=f"{rows}x{columns} dropout={dropout} {dtype} {direction}",
        dtype=dtype,
        contenders=tuple(replace(c, allocator=c.allocator or "system") if on_cpu else c for c in contenders),
        inputs=lambda shared: _inputs(rows, columns, DTYPES[dtype], device, backward),
        device=device,
        shape={"rows": rows, "columns": columns, "dropout": dropout, "direction": direction},
        # x, residual, y; backward: the gradient and the saved sum read, dx and dresidual (one without dropout) written.
        bytes=float(BYTES[dtype]) * rows * columns * (3 + ((4 if dropout else 3) + 1 if backward else 0)),
        tokens=rows,
        tolerance=TOLERANCE[dtype],
        truth=in_float32(_torch, backward=backward),
        cold=True,
        level=level,
    )


def cases(device: str) -> list[Case]:
    """The widths of small, base and large."""
    rows = 65536 if device.startswith("cuda") else 16384
    found = []
    for columns, dtype, (dropout, backward) in itertools.product(
        (256, 768, 1024), DTYPES, ((0.1, True), (0.0, False), (0.1, False), (0.0, True))
    ):
        common = columns != 1024 and dropout > 0 and backward
        level = "default" if common else "full"
        if columns == 256 and dtype == "float32" and backward and dropout:
            level = "quick"
        found.append(_case(rows, columns, dtype, dropout, backward, device, level))
    return found
