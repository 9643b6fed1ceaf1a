"""The CUDA kernels against the best of what else is there, in one run: milliseconds, TFLOP/s or GB/s, cold and warm L2,
replayed graphs and eager calls.

    python benchmarks/bench_cuda_ops.py --record benchmarks/results/h200.csv

Attention: torch's scaled_dot_product_attention with each of its backends, FlashAttention where it is installed.
layer_norm and gelu: torch, eager and compiled. generator_head: torch.compile of linear, cross-entropy and multinomial.
And our Triton kernels. FLOPs: 4 S² d a head and sequence forward, 2.5 times that backward; bytes: what must be read and
written once.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cuda_timing
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from electra_fast import ops, rng

SDPA = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass
class Comparison:
    """Variants of one thing. ``work``: FLOPs (then TFLOP/s are told) or bytes (GB/s)."""

    name: str
    work: float
    unit: str
    variants: dict[str, Callable[[], object]]


def activations(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)


def ours(function: Callable) -> dict[str, Callable]:
    """Native, and Triton where it has this op."""
    variants = {}
    for name in ("native", "triton"):

        def forced(*args, name=name):
            with ops.use_backend(name):
                return function(*args)

        try:
            forced()
        except (RuntimeError, ValueError) as error:
            print(f"  {name}: {str(error).splitlines()[0]}", flush=True)
            continue
        variants[name] = forced
    return variants


def both_ways(
    name: str, work: tuple[float, float], unit: str, functions: dict, leaves: list[Tensor]
) -> Iterator[Comparison]:
    """Forward without, and backward with, autograd. Each function returns the tensor to be derived."""

    def forward(function: Callable) -> None:
        with torch.no_grad():
            function()

    yield Comparison(f"{name} forward", work[0], unit, {n: functools.partial(forward, f) for n, f in functions.items()})
    backwards = {}
    for n, f in functions.items():
        out = f()
        grad = torch.randn_like(out)
        backwards[n] = functools.partial(torch.autograd.grad, out, leaves, grad, retain_graph=True)
    yield Comparison(f"{name} backward", work[1], unit, backwards)


def attention(
    length: int, dropout: float, tokens: int = 32768, heads: int = 12, width: int = 64
) -> Iterator[Comparison]:
    q, k, v = (activations(tokens, heads, width) for _ in range(3))
    cu = torch.arange(0, tokens + 1, length, device="cuda", dtype=torch.int32)
    options = {"dropout_p": dropout, "rng": rng.make(1, device="cuda")} if dropout else {}
    bounds = {"max_seqlen_q": length, "max_seqlen_k": length}
    functions = ours(lambda: ops.attention(q, k, v, cu, **bounds, **options))
    padded = [x.view(-1, length, heads, width).transpose(1, 2) for x in (q, k, v)]
    for name, backend in SDPA.items():

        def sdpa(backend=backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*padded, dropout_p=dropout)

        try:
            sdpa()
        except RuntimeError as error:
            print(f"  {name}: {str(error).splitlines()[0]}", flush=True)
            continue
        functions[name] = sdpa
    try:
        from flash_attn import flash_attn_varlen_func

        functions["flash-attn"] = lambda: flash_attn_varlen_func(q, k, v, cu, cu, length, length, dropout_p=dropout)
    except ImportError:
        pass
    flops = 4.0 * length * width * heads * tokens
    name = f"attention S={length} dropout={dropout}"
    yield from both_ways(name, (flops, 2.5 * flops), "TFLOP/s", functions, [q, k, v])


def layer_norm(columns: int, rows: int = 65536) -> Iterator[Comparison]:
    x, residual = activations(rows, columns), activations(rows, columns)
    weight, bias, x_bias = (torch.randn(columns, device="cuda", requires_grad=True) for _ in range(3))
    state = rng.make(1, device="cuda")
    functions = ours(
        lambda: ops.layer_norm(x, weight, bias, x_bias=x_bias, residual=residual, dropout_p=0.1, rng=state)
    )

    def plain() -> Tensor:
        summed = residual + F.dropout(x + x_bias.to(x.dtype), 0.1)
        return F.layer_norm(summed, (columns,), weight.to(x.dtype), bias.to(x.dtype), 1e-12)

    functions |= {"torch": plain, "torch.compile": torch.compile(plain)}
    bytes_ = 2.0 * rows * columns
    yield from both_ways(
        f"layer_norm N={columns}", (4 * bytes_, 4 * bytes_), "GB/s", functions, [x, residual, weight, bias, x_bias]
    )


def gelu(columns: int, rows: int = 32768) -> Iterator[Comparison]:
    x, bias = activations(rows, columns), torch.randn(columns, device="cuda", requires_grad=True)
    functions = ours(lambda: ops.gelu(x, bias))

    def plain() -> Tensor:
        return F.gelu(x + bias.to(x.dtype))

    functions |= {"torch": plain, "torch.compile": torch.compile(plain)}
    bytes_ = 2.0 * rows * columns
    yield from both_ways(f"gelu N={columns}", (2 * bytes_, 3 * bytes_), "GB/s", functions, [x, bias])


def generator_head(width: int, slots: int = 9830, vocabulary: int = 30522) -> Iterator[Comparison]:
    hidden, weight, bias = activations(slots, width), activations(vocabulary, width), activations(vocabulary)
    targets, state = torch.randint(vocabulary, (slots,), device="cuda"), rng.make(1, device="cuda")
    functions = ours(lambda: ops.generator_head(hidden, weight, bias, targets, rng=state)[0])

    def plain() -> Tensor:
        logits = F.linear(hidden, weight, bias)
        torch.multinomial(torch.softmax(logits.detach().float(), -1), 1)
        return F.cross_entropy(logits.float(), targets, reduction="none")

    functions["torch.compile"] = torch.compile(plain)
    flops = 2.0 * slots * width * vocabulary
    yield from both_ways(f"generator_head K={width}", (flops, 3 * flops), "TFLOP/s", functions, [hidden, weight, bias])


def comparisons() -> Iterator[Callable[[], Iterator[Comparison]]]:
    """The most telling first: a run may be cut off by --seconds."""
    for length, dropout in ((512, 0.1), (128, 0.1), (512, 0.0), (128, 0.0), (2048, 0.1)):
        yield functools.partial(attention, length, dropout)
    for columns in (768, 256, 1024):
        yield functools.partial(layer_norm, columns)
    for width in (128, 768):
        yield functools.partial(generator_head, width)
    yield functools.partial(gelu, 1024)
    yield functools.partial(gelu, 3072)


COLUMNS = [
    "comparison",
    "variant",
    "mode",
    "ms",
    "ms_20",
    "ms_80",
    "rate",
    "unit",
    "share_of_copy",
    "peak_memory_mb",
    "device",
]


def peak_memory(function: Callable[[], object]) -> float:
    """Megabytes that one call takes beyond what is there."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def measure(record: Path | None, seconds: float) -> None:
    begin, rows = time.monotonic(), []
    device, copied = torch.cuda.get_device_name(), cuda_timing.copy_bandwidth()
    print(f"{device}: a copy moves {copied:.0f} GB/s", flush=True)
    for make in comparisons():
        torch.manual_seed(0)
        for comparison in make():
            if time.monotonic() - begin > seconds:
                print("out of time", flush=True)
                return
            print(comparison.name, flush=True)
            times = cuda_timing.in_graphs(comparison.variants)
            for name, function in comparison.variants.items():
                modes = {**times.get(name, {}), "eager": cuda_timing.eager(function)}
                memory = peak_memory(function)
                for mode, t in modes.items():
                    rate = comparison.work / t.median / (1e9 if comparison.unit == "TFLOP/s" else 1e6)
                    share = f"{rate / copied:.3f}" if comparison.unit == "GB/s" else ""
                    print(f"  {name:14} {mode:5} {t.median:8.4f} ms  {rate:7.1f} {comparison.unit} {share}", flush=True)
                    numbers = [*(f"{x:.5f}" for x in (t.median, t.low, t.high)), f"{rate:.1f}"]
                    rows.append(
                        [comparison.name, name, mode, *numbers, comparison.unit, share, f"{memory:.1f}", device]
                    )
            if record:
                with record.open("w", newline="") as file:
                    csv.writer(file).writerows([COLUMNS, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="CSV to write")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start nothing new after this long")
    options = parser.parse_args()
    with torch.cuda.stream(cuda_timing.stream()):
        measure(options.record, options.seconds)


if __name__ == "__main__":
    main()
