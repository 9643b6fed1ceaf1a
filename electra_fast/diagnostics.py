"""What this machine has and what would run on it: the facts behind ``electra-fast doctor``.

Nothing here fails for something that is missing: what is absent is reported as absent, with the reason.
"""

import os
import platform
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path

import torch

import electra_fast
from electra_fast.ops import native
from electra_fast.ops.backend import backends

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "tokenizers",
    "safetensors",
    "transformers",
    "tensorboard",
    "wandb",
    "matplotlib",
    "pyarrow",
    "zstandard",
)


@dataclass(frozen=True)
class Report:
    """Everything ``doctor`` shows. ``ops[device][op][backend]`` is None when that backend can run, else the reason why
    it cannot.
    """

    versions: dict[str, str]
    devices: dict[str, dict[str, str]]
    native: dict[str, str]
    ops: dict[str, dict[str, dict[str, str | None]]]

    def as_dict(self) -> dict:
        """The report as plain dictionaries, for JSON."""
        return asdict(self)


def _versions() -> dict[str, str]:
    found = {"electra_fast": electra_fast.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _devices() -> dict[str, dict[str, str]]:
    devices = {
        "cpu": {
            "name": processor(),
            "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
            "torch threads": str(torch.get_num_threads()),
            "torch capability": torch.backends.cpu.get_cpu_capability(),
        }
    }
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = {
            "name": properties.name,
            "compute capability": f"{properties.major}.{properties.minor}",
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "multiprocessors": str(properties.multi_processor_count),
        }
    return devices


def _native() -> dict[str, str]:
    try:
        info = import_module("electra_fast._native").build_info()
    except ImportError as error:
        return {"built": f"no: {error}"}
    wish = os.environ.get("ELECTRA_CPU_CAPABILITY")
    return {
        "built": f"version {info['version']} with torch {info['torch']}, CUDA {info['cuda']}, {info['compiler']}",
        "instruction sets built": ", ".join(info["instruction_sets"].split()),
        "instruction set of this machine": info["hardware_capability"],
        "instruction set in use": info["capability"] + (f" (ELECTRA_CPU_CAPABILITY={wish})" if wish else ""),
        "CUDA kernels": native.cuda_error or "loaded",
    }


def report(dtype: torch.dtype = torch.float32) -> Report:
    """Collect the facts. ``dtype`` is the activations' dtype that the table of backends is asked for."""
    devices = _devices()
    kinds = dict.fromkeys(name.split(":")[0] for name in devices)
    return Report(_versions(), devices, _native(), {kind: _backends(kind, dtype) for kind in kinds})


def _backends(kind: str, dtype: torch.dtype) -> dict[str, dict[str, str | None]]:
    """What would run in training: the optimiser's weights stay float32 whatever the activations are."""
    return {**backends(device=kind, dtype=dtype), "adam": backends(device=kind, dtype=torch.float32)["adam"]}
