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


@dataclass(frozen=True, eq=False)  # equal is what is the same entry of the table: launches look it up
class Configuration:
    """Knobs of one launch.

    block_m, block_n, block_k: rows and columns of a program's tile, and the depth of a step where it multiplies
    (queries, keys; slots, vocabulary columns; rows, features). num_warps and num_stages as in Triton. max_registers: of
    a thread, on NVIDIA; fewer than the compiler would take let more programs run side by side. fusion: whether products
    and sums may be rounded together.
    reason: why these numbers.
    """

    reason: str
    block_m: int = 1
    block_n: int = 1
    block_k: int = 1
    num_warps: int = 4
    num_stages: int = 1
    max_registers: int | None = None
    fusion: bool = True

    @functools.cached_property
    def options(self) -> dict[str, int | bool]:
        """Compiler options of the launch."""
        limit = {} if self.max_registers is None else {"maxnreg": self.max_registers}
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": self.fusion, **limit}


_STREAM = "16 values a thread: two accesses of 16 bytes in bfloat16, four in float32, in flight at once"

_FLOAT32 = "float32 is multiplied outside the tensor cores, operands in registers: small tiles, or it spills"

_OTHER = "a second set of logits, from which the sample is drawn, takes the registers of a larger tile"

TABLE: dict[tuple[str, str, str], Configuration] = {
    ("attention_forward", ANY, "64"): Configuration(
        "64 keys give each of the four threads of a row one whole Philox call; three programs hide what two stages "
        "do not",
        64,
        64,
        num_stages=2,
        max_registers=168,
    ),
    ("attention_forward", "sm_90", "64"): Configuration(
        "128 queries share what is read of keys from L2; 128 registers suffice and let two programs run side by side",
        128,
        64,
        num_warps=8,
        num_stages=3,
        max_registers=128,
    ),
    ("attention_forward", ANY, "128"): Configuration(
        "128 queries use each key from L2 for 128 products, of which A100 can make 60 for a byte; 64 keys would spill",
        128,
        32,
        num_warps=8,
        num_stages=3,
        max_registers=255,
    ),
    ("attention_forward", "sm_90", "128"): Configuration(
        "queries and keys stay in shared memory, which leaves registers for 64 keys",
        128,
        64,
        num_warps=8,
        num_stages=2,
        max_registers=255,
    ),
    ("attention_forward", "gfx942", ANY): Configuration(
        "as many scores as leave room for three waves of a SIMD, at 64; in at most 40 KB", 64, 32, num_stages=2
    ),
    ("attention_forward", ANY, "float32 64"): Configuration(_FLOAT32, 32, 32, num_warps=8, max_registers=255),
    ("attention_forward", ANY, "float32 128"): Configuration(_FLOAT32, 32, 32, num_warps=8, max_registers=255),
    ("attention_backward_queries", ANY, "64"): Configuration(
        "three programs at a time of 168 registers; 64 keys would spill", 64, 32, num_stages=2, max_registers=168
    ),
    ("attention_backward_queries", "sm_90", "64"): Configuration(
        "three programs at a time of 168 registers", 64, 64, num_stages=2, max_registers=168
    ),
    ("attention_backward_queries", ANY, "128"): Configuration(
        "two programs at a time; 64 keys would spill", 64, 32, num_stages=2, max_registers=255
    ),
    ("attention_backward_queries", "sm_90", "128"): Configuration(
        "128 queries over eight warps: with four, 64 spill", 128, 64, num_warps=8, num_stages=2, max_registers=255
    ),
    ("attention_backward_queries", "gfx942", ANY): Configuration(
        "as many scores as leave room for two waves of a SIMD, at 64", 64, 32, num_stages=2
    ),
    ("attention_backward_queries", "gfx942", "float32 128"): Configuration(
        "with 32 keys, operands of 4 bytes spill", 64, 16, num_stages=2
    ),
    ("attention_backward_queries", ANY, "float32 64"): Configuration(_FLOAT32, 32, 32, num_warps=8, max_registers=255),
    ("attention_backward_queries", ANY, "float32 128"): Configuration(_FLOAT32, 16, 16, num_warps=8, max_registers=255),
    ("attention_backward_keys", ANY, "64"): Configuration(
        "keys and values stay in registers as operands, in each warp: 32 of them leave room; two programs at a time",
        64,
        32,
        num_stages=2,
        max_registers=255,
    ),
    ("attention_backward_keys", "sm_90", "64"): Configuration(
        "two programs at a time; keys and values are read from shared memory", 64, 64, num_stages=2, max_registers=255
    ),
    ("attention_backward_keys", ANY, "128"): Configuration(
        "as at 64, over eight warps", 64, 32, num_warps=8, num_stages=2, max_registers=255
    ),
    ("attention_backward_keys", "sm_90", "128"): Configuration(
        "128 queries at a time over eight warps; a second stage would not fit beside the sums",
        128,
        64,
        num_warps=8,
        max_registers=255,
    ),
    ("attention_backward_keys", "gfx942", ANY): Configuration(
        "as many scores as leave room for two waves of a SIMD, at 64; a second stage would take more", 64, 32
    ),
    ("attention_backward_keys", ANY, "float32 64"): Configuration(_FLOAT32, 32, 32, num_warps=8, max_registers=255),
    ("attention_backward_keys", ANY, "float32 128"): Configuration(_FLOAT32, 16, 16, num_warps=8, max_registers=255),
    ("adam", ANY, ANY): Configuration("two accesses of 16 bytes a thread to each of four arrays", block_n=1024),
    ("column_sums", ANY, ANY): Configuration(
        "at most 512 rows to add: a tile of 16 x 64 keeps 12 programs busy at 768 columns, in few steps", 16, 64
    ),
    ("discriminator_loss_forward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("discriminator_loss_backward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("embedding_forward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("embedding_backward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("embedding_backward", ANY, "wide"): Configuration(
        "rows of more than 512 columns beside two column sums: two warps a row, or registers spill at 1024", 2
    ),
    ("gelu_forward", ANY, ANY): Configuration(_STREAM, 8, 256),
    ("gelu_backward", ANY, ANY): Configuration(_STREAM, 8, 256),
    ("generator_head_add_parts", ANY, ANY): Configuration("8 values a thread, 2 accesses of 16 bytes", block_n=1024),
    ("generator_head_dhidden", ANY, "narrow"): Configuration(
        "the sums of 64 slots beside the tiles of both products; two programs at a time", 64, 64, num_stages=2
    ),
    ("generator_head_dhidden", "sm_90", "narrow"): Configuration(
        "128 slots share what is read of the weight from L2", 128, 64, num_warps=8, num_stages=2
    ),
    ("generator_head_dhidden", "gfx942", "narrow"): Configuration("as many as stay in registers", 64, 32, num_stages=2),
    ("generator_head_dweight", ANY, "narrow"): Configuration(
        "64 slots in a step would spill; two programs at a time", 32, 64, num_stages=2
    ),
    ("generator_head_dweight", "sm_90", "narrow"): Configuration("two programs at a time", 64, 64, num_stages=2),
    ("generator_head_finish", ANY, ANY): Configuration(
        "four slots a warp, whose 128 logits of two groups are all there is to read", 16, block_k=128
    ),
    ("generator_head_gradient", ANY, "wide"): Configuration(
        "the largest tile without a spill: a tile's rows and columns are read again by every tile beside it",
        128,
        128,
        64,
        num_warps=8,
        num_stages=2,
    ),
    ("generator_head_gradient", "sm_90", "wide"): Configuration(
        "as above, with shared memory for another stage", 128, 128, 64, num_warps=8, num_stages=3
    ),
    ("generator_head_gradient", ANY, "float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8),
    ("generator_head_product", ANY, "wide"): Configuration(
        "a plain product; 256 features a tile spill", 128, 128, 64, num_warps=8, num_stages=3
    ),
    ("generator_head_product", "gfx942", "wide"): Configuration(
        "as above, with two blocks' shared memory in 64 KB", 128, 128, 64, num_warps=8, num_stages=2
    ),
    ("generator_head_product", ANY, "float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8),
    ("generator_head_sweep", ANY, "narrow"): Configuration(
        "the logits of two groups are kept for each slot: a third in the making is what registers leave",
        128,
        64,
        128,
        num_warps=8,
        num_stages=2,
    ),
    ("generator_head_sweep", "sm_90", "narrow"): Configuration(
        "a row's columns lie in one warp; of two programs at a time one multiplies while the other takes exponentials",
        64,
        128,
        128,
        num_stages=2,
    ),
    ("generator_head_sweep", ANY, "wide"): Configuration(
        "as narrow ones, hidden read with the weight; a third stage spills", 128, 64, 64, num_warps=8, num_stages=2
    ),
    ("generator_head_sweep", "sm_90", "wide"): Configuration(
        "bound by what is read of both operands from L2: the largest tile without a spill",
        128,
        128,
        64,
        num_warps=8,
        num_stages=3,
    ),
    ("generator_head_sweep", ANY, "float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8, max_registers=255),
    ("generator_head_sweep", ANY, "other narrow"): Configuration(_OTHER, 128, 64, 128, num_warps=8, num_stages=2),
    ("generator_head_sweep", ANY, "other wide"): Configuration(_OTHER, 128, 64, 64, num_warps=8, num_stages=2),
    ("generator_head_sweep", ANY, "other float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8, max_registers=255),
    ("generator_head_sweep", "gfx942", "float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8),
    ("generator_head_sweep", "gfx942", "other float32"): Configuration(_FLOAT32, 32, 64, 32, num_warps=8),
    ("integers", ANY, ANY): Configuration(
        "mask_tokens and replace_tokens: a few integers a token; a sequence of 512 in one step", block_n=512
    ),
    ("integers", ANY, "rounded"): Configuration(
        "as the others; how many tokens are chosen hangs on a product rounded by itself", block_n=512, fusion=False
    ),
    ("layer_norm_forward", ANY, ANY): Configuration("a row a warp: no sum leaves a warp", 4),
    ("layer_norm_backward", ANY, ANY): Configuration("a row a warp: no sum over a row leaves it", 4),
    ("layer_norm_backward", ANY, "wide"): Configuration(
        "rows of more than 512 columns beside three column sums: two warps a row, or registers spill at 1024", 2
    ),
    ("sums_by_id", ANY, ANY): Configuration(
        "a warp reads a row of 256 columns in two accesses of 16 bytes a thread; chunks are many, so warps stay single",
        block_n=256,
        num_warps=1,
    ),
}


@functools.cache
def architecture(device: torch.device) -> str:
    """The class of a device: ``sm_80``, ``sm_86`` (also 8.9 and 12.x: 99 KiB of shared memory a block), ``sm_90`` (also
    10.x), ``gfx942`` (every AMD: 64 KiB, and no limit of registers), or "any" for everything else."""
    if device.type != "cuda":
        return ANY
    if torch.version.hip is not None:
        return "gfx942"
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
