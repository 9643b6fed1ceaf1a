"""Launch configurations: block sizes, warps and stages of every kernel, in one table.

A kernel's configuration is looked up by its name, the architecture and a class of shapes that its launcher names: the
first of (architecture, shape), (architecture, "any"), ("any", shape), ("any", "any") that the table has. Nothing is
timed at run time, so that the first step of a run is not late and every process launches the same kernels. Results
never depend on the choice: partial sums are laid out by shapes, and random numbers are counted by element.

``tests/triton_kernels/ahead_of_time.py`` compiles every entry for the architectures below and prints what it costs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

ANY = "any"
ARCHITECTURES = ("sm_80", "sm_86", "sm_90", "gfx942")


@dataclass(frozen=True)
class Configuration:
    """Knobs of one launch.

    block_m, block_n, block_k: rows and columns of a program's tile, and the depth of a step where it multiplies
    (queries, keys; slots, vocabulary columns; rows, features). num_warps and num_stages as in Triton.
    reason: why these numbers.
    """

    reason: str
    block_m: int = 1
    block_n: int = 1
    block_k: int = 1
    num_warps: int = 4
    num_stages: int = 1

    @functools.cached_property
    def options(self) -> dict[str, int | bool]:
        """Compiler options of the launch: ``kernel[grid](..., **configuration.options)``."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


_STREAM = "16 values a thread: two accesses of 16 bytes in bfloat16, four in float32, in flight at once"

TABLE: dict[tuple[str, str, str], Configuration] = {
    ("column_sums", ANY, ANY): Configuration(
        "at most 512 rows to add: a tile of 16 x 64 keeps 12 programs busy at 768 columns, in few steps", 16, 64
    ),
    ("gelu_forward", ANY, ANY): Configuration(_STREAM, 8, 256),
    ("gelu_backward", ANY, ANY): Configuration(_STREAM, 8, 256),
    ("layer_norm_forward", ANY, ANY): Configuration("a row a warp: no sum leaves a warp", 4),
    ("layer_norm_backward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("layer_norm_backward", ANY, "wide"): Configuration(
        "rows of more than 512 columns beside three column sums: two warps a row, or registers spill at 1024", 2
    ),
}


@functools.cache
def architecture(device: torch.device) -> str:
    """The class of a device: ``sm_80``, ``sm_86`` (also 8.9 and 12.x: 100 KB of shared memory), ``sm_90`` (also 10.x),
    AMD's name, or "any" for everything else."""
    if device.type != "cuda":
        return ANY
    if torch.version.hip is not None:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    if major == 8:
        return "sm_80" if minor in (0, 7) else "sm_86"
    return {9: "sm_90", 10: "sm_90", 11: "sm_90", 12: "sm_86"}.get(major, ANY)


@functools.cache
def configuration(kernel: str, device: torch.device, shape: str = ANY) -> Configuration:
    """The configuration of ``kernel`` on ``device`` for a class of shapes; KeyError if the table has none."""
    here = architecture(device)
    for key in ((kernel, here, shape), (kernel, here, ANY), (kernel, ANY, shape), (kernel, ANY, ANY)):
        if key in TABLE:
            return TABLE[key]
    raise KeyError(f"no launch configuration of {kernel} for {here} and shapes {shape!r}")
