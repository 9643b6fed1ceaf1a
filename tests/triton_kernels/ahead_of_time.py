"""Compile every Triton kernel for GPUs that are not here, and read what it costs from the binary.

    python tests/triton_kernels/ahead_of_time.py                       # the table of docs/triton-kernels.md
    python tests/triton_kernels/ahead_of_time.py --target sm_90 --op gelu

The launchers are called with meta tensors at ELECTRA's shapes (calls/X.py), and what they would launch is compiled
instead: the same signatures, constants and configurations as on a GPU. Fails (exit status 1) where a kernel spills
registers or asks for more shared memory than a block of the target can have.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

if os.environ.pop("TRITON_INTERPRET", None):
    sys.exit("ahead_of_time.py compiles: run it without TRITON_INTERPRET")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from electra_fast.triton import configurations

HERE = Path(__file__).parent
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Target:
    gpu: GPUTarget
    shared_limit: int  # bytes of shared memory that one block can have


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 101376),  # of 8.6, 8.9 and 12.x, which run the same configurations
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232448),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65536),
}
_TYPES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel with all that its binary depends on."""

    op: str
    call: str
    kernel: JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[int, object], ...]
    divisible: tuple[int, ...]
    options: tuple[tuple[str, object], ...]

    @property
    def name(self) -> str:
        return f"{self.op}.{self.kernel.__name__.removesuffix('_kernel')}"

    @property
    def binary(self) -> tuple:
        return self.kernel, self.signature, self.constants, self.divisible, self.options


@dataclass(frozen=True)
class Row:
    """A line of the table. spills: bytes of registers kept in memory by a thread."""

    kernel: str
    call: str
    target: str
    warps: int
    registers: int
    shared: int
    spills: int


def _describe(op: str, call: str, kernel: JITFunction, arguments: tuple, keywords: dict) -> Launch:
    """The launch as Triton would specialise it for these arguments."""
    names = [parameter.name for parameter in kernel.params]
    given = dict(zip(names, arguments, strict=False)) | {k: v for k, v in keywords.items() if k in names}
    signature, constants, divisible = [], [], []
    for index, parameter in enumerate(kernel.params):
        value = given[parameter.name] if parameter.name in given else parameter.default
        kind, fixed, aligned = _specialise(parameter, value)
        signature.append((parameter.name, kind))
        if fixed:
            constants.append((index, value))
        if aligned:
            divisible.append(index)
    options = tuple(sorted((k, v) for k, v in keywords.items() if k not in names))
    return Launch(op, call, kernel, tuple(signature), tuple(constants), tuple(divisible), options)


def _specialise(parameter, value) -> tuple[str, bool, bool]:
    """The type of an argument, and whether it is compiled in, and whether it is known to be a multiple of 16."""
    if parameter.is_constexpr or value is None:
        return "constexpr", True, False
    if isinstance(value, torch.Tensor):
        return f"*{_TYPES[value.dtype]}", False, value.storage_offset() * value.itemsize % 16 == 0
    if isinstance(value, bool):
        return "u1", False, False
    if isinstance(value, int):
        kind = "i32" if -(2**31) <= value < 2**31 else "i64"
        if parameter.do_not_specialize:
            return kind, False, False
        return ("constexpr", True, False) if value == 1 else (kind, False, value % 16 == 0)
    return "fp32", False, False


@contextlib.contextmanager
def _recording(launches: list[Launch], op: str, call: str, architecture: str) -> Iterator[None]:
    """Launches are written down instead of made, with the configurations of an architecture."""
    run, original = JITFunction.run, configurations.architecture

    def record(kernel: JITFunction, *arguments, grid, warmup, **keywords) -> None:
        launches.append(_describe(op, call, kernel, arguments, keywords))

    JITFunction.run = record
    configurations.architecture = lambda device: architecture
    configurations.configuration.cache_clear()
    try:
        yield
    finally:
        JITFunction.run, configurations.architecture = run, original
        configurations.configuration.cache_clear()


@functools.cache
def launches(target: str, ops: tuple[str, ...] = ()) -> list[Launch]:
    """What the calls in calls/X.py launch on a target, each binary once."""
    found: list[Launch] = []
    for file in sorted((HERE / "calls").glob("*.py")):
        if ops and file.stem not in ops:
            continue
        spec = importlib.util.spec_from_file_location(f"calls_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for call, function in module.CALLS.items():
            with _recording(found, file.stem, call, target):
                function()
    return list({launch.binary: launch for launch in reversed(found)}.values())[::-1]


def _nvidia(kernel) -> tuple[int, int]:
    """Registers of a thread, and bytes of memory it spills to, from the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
        code = subprocess.run([TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if found is None or not code:
        raise RuntimeError(f"cuobjdump and nvdisasm of {TOOLS} did not read the binary")
    registers, stack, local = map(int, found.groups())
    return registers, max(stack, local, 4 * len(re.findall(r"\b(?:LDL|STL)\b", code)))


def _amd(kernel) -> tuple[int, int]:
    """Vector registers of a lane, and bytes of memory it spills to, from the code object's metadata."""

    def count(name: str) -> int:
        return int(re.search(rf"\.{name}: +(\d+)", kernel.asm["amdgcn"]).group(1))

    spilled = 4 * (count("vgpr_spill_count") + count("sgpr_spill_count"))
    return count("vgpr_count"), max(spilled, count("private_segment_fixed_size"))


def compile_launch(launch: Launch, target: str) -> Row:
    attributes = {(index,): [["tt.divisibility", 16]] for index in launch.divisible}
    constants = {(index,): value for index, value in launch.constants}
    source = ASTSource(launch.kernel, dict(launch.signature), constants, attributes)
    known = vars(triton.compiler.make_backend(TARGETS[target].gpu).parse_options({}))
    if unknown := [name for name, _ in launch.options if name not in known]:
        raise RuntimeError(f"{launch.name} ({launch.call}) would not launch on {target}: it has no option {unknown}")
    try:
        kernel = triton.compile(source, target=TARGETS[target].gpu, options=dict(launch.options))
    except Exception as failure:
        raise RuntimeError(f"{launch.name} ({launch.call}) does not compile for {target}: {failure}") from failure
    registers, spills = (_nvidia if TARGETS[target].gpu.backend == "cuda" else _amd)(kernel)
    warps = dict(launch.options)["num_warps"]
    return Row(launch.name, launch.call, target, warps, registers, kernel.metadata.shared, spills)


def _compile(target: str, ops: tuple[str, ...], index: int) -> Row:
    return compile_launch(launches(target, ops)[index], target)


def compile_all(target: str, ops: tuple[str, ...] = (), workers: int = 1) -> list[Row]:
    """Compile what a target needs; kernels cannot be sent to another process, their place in the list can."""
    count = len(launches(target, ops))
    compile_one = functools.partial(_compile, target, ops)
    if workers == 1:
        return [compile_one(index) for index in range(count)]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        return list(pool.map(compile_one, range(count)))


def problems(rows: list[Row]) -> list[str]:
    found = []
    for row in rows:
        where = f"{row.kernel} ({row.call}) for {row.target}"
        if row.spills:
            found.append(f"{where} spills {row.spills} bytes a thread")
        if row.shared > (limit := TARGETS[row.target].shared_limit):
            found.append(f"{where} asks for {row.shared} bytes of shared memory, a block can have {limit}")
    return found


def table(rows: list[Row]) -> str:
    """A line for each kernel and call: registers, shared memory in bytes and spills on each target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    head = ["kernel", "call", *(f"{target}: warps, registers, shared, spills" for target in targets)]
    lines = {}
    for row in rows:
        cells = lines.setdefault((row.kernel, row.call), {})
        cell = f"{row.warps}, {row.registers}, {row.shared}, {row.spills}"
        cells[row.target] = f"{cells[row.target]}; {cell}" if row.target in cells else cell
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (kernel, call), cells in lines.items():
        text.append("| " + " | ".join([kernel, call, *(cells.get(target, "") for target in targets)]) + " |")
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile every Triton kernel for GPUs that are not here.")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--op", action="append", help="default: all")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of a table")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)
        rows = [row for target in targets for row in compile_all(target, tuple(options.op or ()), options.workers)]
    print(json.dumps([asdict(row) for row in rows]) if options.json else table(rows))
    found = problems(rows)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
