"""Builds CUDA sources for the emulator with g++: objects are kept, and made anew when something they include changes.

Used by tests/cuda/conftest.py. The folder (build/emulation, or ELECTRA_EMULATION_BUILD) may be shared by test
processes: a lock lets one of them build while the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
EMULATION = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("ELECTRA_EMULATION_BUILD", ROOT / "build" / "emulation"))
JOBS = 2

RUNTIME = ("scheduler", "memory", "collectives", "hopper", "wgmma", "allocator")
_RUNTIME_FLAGS = ("-O2", "-Wall", "-Wextra")

# Emulator and boundaries: plain optimised code. Kernels: every access to memory calls the emulator (the instrumentation
# of the thread sanitizer, without its runtime), and so does an index outside an array of known size. No unique symbols:
# two libraries with the same static shared memory (of an inline function) must have one each.
_COMMON = ("-std=c++20", "-fPIC", "-fno-strict-aliasing", "-fno-gnu-unique", "-DELECTRA_EMULATION", "-g1")
_KERNEL = (
    *("-O1", "-ffp-contract=off", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),
    *("-fsanitize=bounds", "-fno-sanitize-recover=bounds", "-Wno-unknown-pragmas", "-Wno-attributes"),
    *("-include", "emulation/device.h", "-x", "c++"),
)


@functools.cache
def cuda_include() -> Path | None:
    """The folder of cuda_runtime_api.h: that of CUDA_HOME, of nvcc's toolkit, or of NVIDIA's wheels."""
    candidates = [Path(home) / "include" for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    if nvcc := shutil.which("nvcc"):  # may be a wrapper: it knows where its toolkit is
        dry = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False).stderr
        candidates[:0] = [Path(top) / "include" for top in re.findall(r"^#\$ TOP=(.*)$", dry, re.MULTILINE)]
    candidates += sorted((Path(torch.__file__).parents[1] / "nvidia").glob("cu*/include"))
    return next((c for c in candidates if (c / "cuda_runtime_api.h").exists() and (c / "cuda_bf16.h").exists()), None)


def why_not() -> str | None:
    """None if the emulator can be built here, else the reason."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the emulator switches stacks on x86-64 only, not on {platform.machine()}"
    if shutil.which("g++") is None:
        return "the emulator needs g++"
    if cuda_include() is None:
        return "the emulator needs the CUDA headers (cuda_runtime_api.h, cuda_bf16.h): set CUDA_HOME"
    return None


@functools.cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(*parts: str | bytes) -> str:
    h = hashlib.sha256()
    for part in parts:
        h.update(part.encode() if isinstance(part, str) else part)
        h.update(b"\0")
    return h.hexdigest()[:24]


def _stamp(dependencies: Sequence[str]) -> str | None:
    """Of the contents of all files an object is made from; None if one is gone."""
    try:
        return _digest(*(Path(d).read_bytes() for d in dependencies))
    except FileNotFoundError:
        return None


def _compile(source: Path, flags: Sequence[str]) -> Path:
    torch_include = Path(torch.__file__).parent / "include"
    includes = [
        f"-I{ROOT / 'csrc'}",
        f"-I{EMULATION.parent}",
        "-isystem",
        str(cuda_include()),
        "-isystem",
        str(torch_include),
    ]
    command = ["g++", *_COMMON, *flags, *includes, "-c", str(source)]
    name = _digest(*command, _compiler())
    made, record = FOLDER / f"{source.stem}-{name}.o", FOLDER / f"{source.stem}-{name}.json"
    if made.exists() and record.exists():
        known = json.loads(record.read_text())
        if _stamp(known["files"]) == known["stamp"]:
            return made
    listing = made.with_suffix(".d")
    built = subprocess.run(
        [*command, "-MMD", "-MF", str(listing), "-o", str(made)], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile for the emulator:\n{built.stderr}")
    files = listing.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    record.write_text(json.dumps({"files": files, "stamp": _stamp(files)}))
    return made


def _link(name: str, objects: Sequence[Path], libraries: Sequence[str]) -> Path:
    made = FOLDER / f"lib{name}-{_digest(*(o.read_bytes() for o in objects), *libraries)}.so"
    if not made.exists():
        torch_lib = Path(torch.__file__).parent / "lib"
        # -Bsymbolic: the functions of the CUDA runtime are the emulator's, whatever else the process has loaded.
        command = ["g++", "-shared", "-Wl,-Bsymbolic", "-o", str(made) + ".part", *map(str, objects)]
        command += [*libraries, f"-L{torch_lib}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
        linked = subprocess.run(command, capture_output=True, text=True, check=False)
        if linked.returncode != 0:
            raise RuntimeError(f"{name} does not link for the emulator:\n{linked.stderr}")
        os.replace(str(made) + ".part", made)
    return made


def _objects(sources: Sequence[tuple[Path, Sequence[str]]]) -> list[Path]:
    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(lambda one: _compile(*one), sources))


def build_runtime() -> Path:
    """The emulator and the schemas: the library that all others need."""
    sources = [(EMULATION / f"{name}.cpp", _RUNTIME_FLAGS) for name in RUNTIME]
    namespace = ("-O1", "-DTORCH_TARGET_VERSION=0x020B000000000000", "-DELECTRA_NAMESPACE=electra_fast_emulated")
    sources.append((ROOT / "csrc" / "schema.cpp", namespace))
    with _locked():
        return _link("electra_emulation", _objects(sources), ["-ldl"])


def build(name: str, kernels: Sequence[Path], boundaries: Sequence[Path] = ()) -> Path:
    """A library of kernel files (.cu) and boundary files (.cpp), to be loaded after the runtime."""
    runtime = build_runtime()
    sources = [(path, _KERNEL) for path in kernels] + [(EMULATION / "cuda_runtime.cpp", _RUNTIME_FLAGS)]
    sources += [(path, ("-O1", "-DTORCH_TARGET_VERSION=0x020B000000000000")) for path in boundaries]
    with _locked():
        return _link(name, _objects(sources), [str(runtime), f"-Wl,-rpath,{runtime.parent}"])


def build_op(op: str) -> Path:
    """csrc/cuda/<op>*.cu and csrc/cuda/bindings/<op>.cpp."""
    folder = ROOT / "csrc" / "cuda"
    kernels = sorted(p for p in folder.glob("*.cu") if p.stem == op or p.stem.startswith(f"{op}_"))
    return build(op, kernels, [folder / "bindings" / f"{op}.cpp"])
