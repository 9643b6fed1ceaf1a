"""What a call of an op with Triton kernels costs the host, besides its launches. Needs Triton, but no GPU.

    python benchmarks/bench_triton_host_overhead.py
    python benchmarks/bench_triton_host_overhead.py --op layer_norm --op gelu

Method: Triton believes in an active driver for sm_90, compiles the kernels for it, and calls a launcher that does
nothing. Tensors are small and on the CPU. A call is timed in runs of 20, with those of the other columns in turn; the
least of many runs counts, as a host does other things as well. Columns, in microseconds a call:

    launches    how many kernels the call launches
    triton      the same launches as Triton makes them, `kernel[grid](...)`: each looks up its compiled kernel
    launcher    `forward` of electra_fast/triton/X.py: allocation, look-up of configurations, and launches that reuse
                the compiled kernel (launch.py), which can make it cheaper than "triton"
    inference   the public function under no_grad: checks, choice of the backend, launcher
    training    the same with gradients: the autograd node in addition
    floor       the least that such a node takes: an autograd.Function that saves as many tensors, is applied in the
                same way, and does nothing but detach a tensor (0.4) to have an output
    - triton    inference and training less "triton": what a call costs more than its launches in a plain Triton
                program; what launches without a look-up save counts in its favour
    backward    torch.autograd.grad of the first output less its launches made by Triton: autograd's engine, which on a
                GPU works in a thread of its own, the backward launcher, and on the CPU the zeroing of gradients
    loop        a fixed loop of Python: where it differs, the processor had another clock, and so rows do not compare

Contained: everything in Python, torch's allocation on the CPU. Not contained: cuLaunchKernel and the packing of its
arguments (2 to 4 µs a launch), torch's caching allocator in place of malloc, the question which device is current.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable

if os.environ.get("TRITON_INTERPRET") == "1":
    sys.exit("run this without TRITON_INTERPRET: the interpreter's overhead is another one")

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from electra_fast import ops, rng
from electra_fast.triton import configurations, launch, registration

ROWS, WIDTH, HEADS, VOCABULARY = 64, 256, 4, 1000


class _Utilities:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple:
        return 1, 1, 32, 0, 1024

    def get_device_properties(self, device: int) -> dict:
        return {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}


class _Driver:
    """As much of an NVIDIA driver as Triton asks for between a call and its launch."""

    utils = _Utilities()

    def is_active(self) -> bool:
        return True

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return "int"

    def launcher_cls(self, source: object, metadata: object) -> Callable:
        return lambda *arguments: None


def pretend() -> None:
    """Let Triton's ops take tensors on the CPU, with the configurations of Hopper."""
    driver.set_active(_Driver())
    configurations.architecture = lambda device: "sm_90"
    registration._DEVICES = ("cpu",)
    for function in registration.SCHEMAS:
        op, part = function.removesuffix("_backward").rstrip("_"), "backward" if "_backward" in function else "forward"
        registration._library.impl(function, registration._launcher(op, part), "CPU")


def least(functions: list[tuple[Callable[[], object], bool]], runs: int = 300, calls: int = 20) -> list[float]:
    """Microseconds of one call of each, with or without gradients, in turn, so that all of them meet the moments when
    the host is quiet."""
    best = [float("inf")] * len(functions)
    for run in range(runs + 5):
        for i, (function, gradients) in enumerate(functions):
            with torch.set_grad_enabled(gradients):
                start = time.perf_counter_ns()
                for _ in range(calls):
                    function()
                spent = time.perf_counter_ns() - start
            if run >= 5:  # the first ones compile and fill caches
                best[i] = min(best[i], spent)
    return [time / calls / 1e3 for time in best]


def loop() -> None:
    for _ in range(500):
        pass


def launches_of(function: Callable[[], object]) -> tuple[int, Callable[[], None]]:
    """How many launches a call makes, and what makes them again without what surrounds them."""
    launches, run = [], JITFunction.run
    launch._compiled.clear()  # or those made before would not pass by here

    def record(kernel: JITFunction, *arguments, grid, warmup, **options) -> object:
        launches.append(lambda: run(kernel, *arguments, grid=grid, warmup=warmup, **options))
        return run(kernel, *arguments, grid=grid, warmup=warmup, **options)

    JITFunction.run = record
    try:
        function()
    finally:
        JITFunction.run = run

    def again() -> None:
        for make in launches:
            make()

    return len(launches), again


def cases() -> dict[str, tuple[Callable, list[Tensor]]]:
    """Op -> its public function with the rest of its arguments bound, and the tensors that it takes gradients of."""
    x, vector, cu = torch.randn(ROWS, WIDTH), torch.randn(WIDTH), torch.tensor([0, ROWS], dtype=torch.int32)
    state, ids, special = rng.make(1), torch.randint(ROWS, (ROWS,)), torch.tensor([0, 1])
    few, heads = ids[:16], torch.randn(3, ROWS, HEADS, WIDTH // HEADS).bfloat16().unbind()
    words, labels = torch.randn(VOCABULARY, WIDTH), torch.rand(ROWS) < 0.2
    drop = {"dropout_p": 0.1, "rng": state, "site": 3}
    return {
        "attention": (lambda q, k, v: ops.attention(q, k, v, cu, **drop), list(heads)),
        "layer_norm": (
            lambda x, residual, weight, bias, x_bias: ops.layer_norm(
                x, weight, bias, x_bias=x_bias, residual=residual, **drop
            ),
            [x, x, vector, vector, vector],
        ),
        "gelu": (ops.gelu, [x, vector]),
        "embedding": (
            lambda *parameters: ops.embedding(ids, ids, ids, *parameters, padding_idx=0, **drop),
            [words, words, words, vector, vector],
        ),
        "generator_head": (
            lambda hidden, weight, bias: ops.generator_head(hidden, weight, bias, ids, rng=state, site=3),
            [x[:, :128].bfloat16(), words[:, :128].bfloat16(), torch.randn(VOCABULARY)],
        ),
        "discriminator_loss": (
            lambda hidden, weight, bias: ops.discriminator_loss(hidden, weight, bias, labels, labels),
            [x, vector[None], torch.randn(1)],
        ),
        "mask_tokens": (
            lambda: ops.mask_tokens(ids, cu, special, mask_id=3, probability=0.15, max_predictions=16, rng=state),
            [],
        ),
        "replace_tokens": (lambda: ops.replace_tokens(ids, few, few, few), []),
    }


def first(outputs: Tensor | tuple) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def launcher_of(op: str, function: Callable[[], object]) -> Callable[[], object]:
    """`forward` of the op's file, with the arguments with which this call reaches it."""
    implementation, seen = registration.implementations[op], []
    registration.implementations[op] = lambda *arguments: seen.append(arguments) or implementation(*arguments)
    try:
        function()
    finally:
        registration.implementations[op] = implementation
    forward = importlib.import_module(f"electra_fast.triton.{op}").forward
    return lambda: forward(*seen[0])


def floor_of(op: str, output: Tensor, leaves: list[Tensor]) -> Callable[[], object]:
    """Applies a node that saves what the op's node has saved, and does nothing else."""
    node = output.grad_fn
    assert node.name() == f"{op}Backward", node
    saved, detached = node.saved_tensors, output.detach()

    class Floor(torch.autograd.Function):
        @staticmethod
        def forward(ctx, others: list[Tensor], args: tuple, *differentiable: Tensor) -> Tensor:
            ctx.save_for_backward(*saved)
            return detached.detach()

    apply = super(torch.autograd.Function, Floor).apply  # as electra_fast/registration.py does it
    return lambda: apply([], (), *leaves)


def measure(op: str, function: Callable, tensors: list[Tensor]) -> str:
    """A line of the table."""

    def call() -> object:
        return function(*tensors)

    count, again = launches_of(call)
    forward = [(loop, False), (again, False), (launcher_of(op, call), False), (call, False)]
    if not tensors:
        clock, triton, launcher, inference = least(forward)
        return row(op, count, triton, launcher, inference, None, None, inference - triton, None, None, clock)
    leaves = [x.clone().requires_grad_() for x in tensors]
    output = first(function(*leaves))
    grad = torch.ones_like(output)

    def backward() -> object:
        return torch.autograd.grad(output, leaves, grad, retain_graph=True)

    forward += [(lambda: function(*leaves), True), (floor_of(op, output, leaves), True)]
    clock, triton, launcher, inference, training, floor = least(forward)
    _, backward_again = launches_of(backward)
    engine, backward_triton = least([(backward, True), (backward_again, False)])
    over = inference - triton, training - triton, engine - backward_triton
    return row(op, count, triton, launcher, inference, training, floor, *over, clock)


def row(op: str, launches: int, *times: float | None) -> str:
    return f"| {op} | {launches} | " + " | ".join("" if time is None else f"{time:.1f}" for time in times) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Host overhead of ops with Triton kernels, without a GPU.")
    parser.add_argument("--op", action="append", help="default: all")
    options = parser.parse_args()
    pretend()
    print(f"triton {triton.__version__}, torch {torch.__version__}, Python {platform.python_version()}; µs a call\n")
    columns = ("op", "launches", "triton", "launcher", "inference", "training", "floor")
    columns += ("inference - triton", "training - triton", "backward", "loop")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    with ops.use_backend("triton"):
        for op, (function, tensors) in cases().items():
            if not options.op or op in options.op:
                print(measure(op, function, tensors), flush=True)


if __name__ == "__main__":
    main()
