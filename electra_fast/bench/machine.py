"""Where a measurement was taken: device, clocks, versions, commit, date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import electra_fast
from electra_fast.diagnostics import processor

_PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "onnxruntime",
    "torchao",
    "tokenizers",
    "flash-attn",
    "liger-kernel",
    "cut-cross-entropy",
    "apex",
)


def describe(device: str) -> dict[str, Any]:
    """Everything that a figure depends on and that does not change during a run."""
    cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "backend": "cuda" if cuda else "cpu",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": capability(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def capability() -> str:
    """The instruction set that our kernels use."""
    try:
        from electra_fast import _native
    except ImportError as error:
        return f"not built: {error}"
    return _native.build_info()["capability"]


def versions() -> dict[str, str]:
    """Of this package and of the peers that are installed."""
    found = {"electra_fast": electra_fast.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the tree that the package is imported from, marked where that has been changed since; "" outside of one."""
    folder = Path(electra_fast.__file__).parent
    try:
        tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--match=") if tracked else ""
    except FileNotFoundError:
        return ""


def clock_mhz(device: str) -> float:
    """The clock now: the mean of the processor's cores, or the GPU's; 0 where the system does not say."""
    if device.startswith("cuda"):
        try:
            return float(torch.cuda.clock_rate(device))
        except (ImportError, RuntimeError):  # needs nvidia-ml-py
            return 0.0
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    clocks = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else 0.0


def load_average() -> float:
    """Processes that want to run, over the last minute: more than our own threads means that others disturb."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def last_level_cache_bytes() -> int:
    """Of one core; 32 MiB where the system does not say."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]])
    return max(sizes, default=32 << 20)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=folder, check=False)
    return done.stdout.strip()
