"""Every CUDA kernel is built as in an install, for sm_80 and sm_90a, without a GPU: no register may spill, no array may
lie in local memory, no wgmma may wait for the one before it, and the library links. Where torch has CUDA, it is also
loaded.

Incremental: what ptxas said is kept beside each object, so a second run compiles only what changed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import torch

from electra_fast.ops import native

ROOT = Path(__file__).resolve().parents[2]
KERNELS = sorted(path.stem for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
JOBS = 2

pytestmark = pytest.mark.timeout(1800)  # the first test builds everything


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel for one architecture."""

    name: str
    architecture: str
    stack: int
    spills: int
    registers: int
    shared: int

    def __str__(self) -> str:
        return (
            f"{self.architecture}: {self.registers} registers, {self.shared} bytes of static shared memory: {self.name}"
        )


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>[^'\n]+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def read_log(text: str) -> list[Kernel]:
    kernels = []
    if shutil.which("c++filt"):
        text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout
    for m in _ENTRY.finditer(text):
        shared = re.search(r"(\d+) bytes smem", m["rest"])
        spills = int(m["stores"]) + int(m["loads"])
        size = int(shared[1]) if shared else 0
        kernels.append(Kernel(m["name"], m["architecture"], int(m["stack"]), spills, int(m["registers"]), size))
    return kernels


def why_not() -> str | None:
    if shutil.which("nvcc") is None and "CUDACXX" not in os.environ:
        return "compiling CUDA kernels needs nvcc"
    for package in ("cmake", "ninja", "pybind11"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return f"compiling CUDA kernels needs the package {package}"
    return None


def tool(name: str) -> str:
    """A program of this environment, or of the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name


def run(command: Sequence[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def configure(source: Path, folder: Path) -> None:
    import pybind11

    options = {
        "ELECTRA_CUDA": "ON",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "CMAKE_CUDA_COMPILER_LAUNCHER": ROOT / "tests" / "cuda" / "keep_log.sh",
        "CMAKE_CUDA_FLAGS": "-Xptxas=-v",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    done = run([tool("cmake"), "-S", str(source), "-B", str(folder), "-G", "Ninja", *defines])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder() -> Path:
    """A build folder with the CUDA library in it, as far as it could be built."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = ROOT / "build" / f"cuda-torch{torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure(ROOT, folder)
        built = run([tool("ninja"), "-C", str(folder), f"-j{JOBS}", "-k0", "_C_cuda"])
        (folder / "build.log").write_text(built.stdout + built.stderr)
    return folder


def logs_of(folder: Path, kernel: str) -> list[Path]:
    return list(folder.glob(f"CMakeFiles/electra_kernels*.dir/csrc/cuda/{kernel}.cu.o.log"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_spills_or_uses_local_memory(folder, kernel, record_property) -> None:
    logs = logs_of(folder, kernel)
    assert len(logs) == 1, f"{kernel}.cu was not compiled:\n{(folder / 'build.log').read_text()[-8000:]}"
    assert logs[0].with_suffix("").exists(), f"{kernel}.cu does not compile:\n{logs[0].read_text()}"
    found = read_log(logs[0].read_text())
    if (
        "__global__" not in (ROOT / "csrc" / "cuda" / f"{kernel}.cu").read_text()
    ):  # chooses among the kernels of other files
        assert not found
        return
    architectures = {"sm_90a"} if kernel.endswith("_sm90") else {"sm_80", "sm_90a"}
    assert {k.architecture for k in found} == architectures
    serialized = [line for line in logs[0].read_text().splitlines() if "instructions are serialized" in line]
    assert not serialized, "\n".join(serialized)
    for k in found:
        print(k)
        record_property(f"{k.architecture} {k.name}", f"{k.registers} registers, {k.shared} bytes")
    faults = [f"{k}: {k.stack} bytes of local memory, {k.spills} of spills" for k in found if k.stack or k.spills]
    faults += re.findall(r".*wgmma.*serialized.*", logs[0].read_text())  # ptxas says so, and no more
    assert not faults, "\n".join(faults)


def test_library_links_and_has_every_op(folder) -> None:
    library = folder / "_C_cuda.so"
    assert library.exists(), (folder / "build.log").read_text()[-8000:]
    symbols = run(["nm", "-DC", "--undefined-only", str(library)])
    assert symbols.returncode == 0, symbols.stderr
    assert "electra" not in symbols.stdout
    if torch.version.cuda is None:
        pytest.skip(f"loading the CUDA library needs a torch with CUDA; this is {torch.__version__}")
    ops = [*native.FUNCTIONS.values()]
    script = (
        "import torch, electra_fast\n"
        f"torch.ops.load_library({str(library)!r})\n"
        f"for op in {ops}:\n"
        "    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'electra_fast::{op}', 'CUDA'), op\n"
    )
    if native.cuda_error is not None:  # else the installed library is loaded already, and this would register twice
        loaded = run([sys.executable, "-c", script])
        assert loaded.returncode == 0, loaded.stderr
    else:
        assert all(native.missing(op, "cuda", ()) is None for op in native.FUNCTIONS)


def compile_alone(source: Path, architecture: str, folder: Path) -> list[Kernel]:
    nvcc = os.environ.get("CUDACXX", "nvcc")
    target = f"arch={architecture.replace('sm', 'compute')},code={architecture}"
    command = [nvcc, "-std=c++17", "-gencode", target, "-Xptxas=-v", f"-I{ROOT / 'csrc'}", "-cubin"]
    done = run([*command, "-o", str(folder / "kernel.cubin"), str(source)])
    assert done.returncode == 0, done.stderr
    return read_log(done.stderr)


@pytest.mark.parametrize(("source", "architecture"), [("faults", "sm_80"), ("faults_hopper_sm90", "sm_90a")])
def test_what_the_emulator_is_tested_with_compiles(tmp_path, source, architecture) -> None:
    """So every instruction that is emulated is one that exists."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    found = compile_alone(ROOT / "tests" / "cuda" / "emulation" / f"{source}.cu", architecture, tmp_path)
    assert {k.architecture for k in found} == {architecture}


@pytest.mark.parametrize(
    ("body", "stack"),
    [
        ("out[i] = in[i];", 0),
        ("float a[64]; for (int j = 0; j < 64; ++j) a[int(in[j])] = in[j]; out[i] = a[int(in[64 + i])];", 256),
    ],
)
def test_the_gate_itself(tmp_path, body, stack) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    source = tmp_path / "kernel.cu"
    source.write_text(f"__global__ void kernel(const float* in, float* out) {{ const int i = threadIdx.x; {body} }}\n")
    (kernel,) = compile_alone(source, "sm_80", tmp_path)
    assert kernel.architecture == "sm_80"
    assert kernel.registers > 0
    assert kernel.stack == stack
