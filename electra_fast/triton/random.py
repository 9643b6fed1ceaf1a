"""The random numbers of the contract (docs/design.md) inside Triton kernels, bit for bit those of every other backend.

``tl.philox`` takes the counter (c0, c1, c2, c3) = (block, row, site, step) and the 64-bit seed in the contract's order.
Counters name elements, never tiles or programs, so that no draw depends on a launch configuration.

Pass ``site`` and ``threshold`` to a kernel as ordinary arguments listed in ``do_not_specialize``: each place of a model
has its own site, and none should be compiled for.
"""

from __future__ import annotations

import functools

import triton
import triton.language as tl

from electra_fast.reference.philox import keep_scale, keep_threshold

__all__ = ["dropout_arguments", "keep_tile", "load_state", "uniform", "word_at", "words"]


@functools.cache
def dropout_arguments(p: float) -> tuple[int, float]:
    """(threshold, scale) of a kernel: bytes below the threshold are kept and scaled by ``256 / threshold``."""
    return keep_threshold(p), keep_scale(p)


@triton.jit
def load_state(rng):
    """(seed int64, step uint32) read from int64 ``[2]`` in device memory; load them once a program."""
    return tl.load(rng), tl.load(rng + 1).to(tl.uint32)


@triton.jit
def words(seed, step, site, row, block):
    """The four uint32 words of the calls at (block, row), which broadcast against each other; any integer types."""
    return tl.philox(
        seed,
        tl.cast(block, tl.uint32),
        tl.cast(row, tl.uint32),
        tl.cast(site, tl.uint32),
        step,
        n_rounds=7,
    )


@triton.jit
def word_at(seed, step, site, row, index, first_block):
    """Word ``index % 4`` of block ``first_block + index // 4`` (index >= 0), one uint32 for each index."""
    block = tl.cast(first_block, tl.uint32) + tl.cast(index // 4, tl.uint32)  # 2^31 is no int32
    w0, w1, w2, w3 = words(seed, step, site, row, block)
    place = index % 4
    return tl.where(place < 2, tl.where(place == 0, w0, w1), tl.where(place == 2, w2, w3))


@triton.jit
def uniform(word):
    """float32 in (0, 1]: ``(word + 0.5) · 2⁻³²``."""
    return (word.to(tl.float32) + 0.5) * 2.3283064365386963e-10


@triton.jit
def keep_tile(seed, step, site, rows, first_block, threshold, BLOCKS: tl.constexpr):
    """Which of the columns ``16·first_block …`` of ``rows [R]`` dropout keeps: bool ``[R, 16·BLOCKS]``.

    One call of the generator serves 16 neighbouring columns, as ``[R, BLOCKS, 16]``: the words are broadcast along the
    last dimension and each column picks its byte, so that threads with 8 columns of a row draw twice per 16 and nothing
    passes through shared memory (laying the words side by side instead costs a round trip and three barriers).
    """
    block = first_block + tl.arange(0, BLOCKS)
    w0, w1, w2, w3 = words(seed, step, site, rows[:, None], block[None, :])
    column = tl.arange(0, 16)[None, None, :]
    lower = tl.where(column < 4, w0[:, :, None], w1[:, :, None])
    upper = tl.where(column < 12, w2[:, :, None], w3[:, :, None])
    word = tl.where(column < 8, lower, upper)
    draw = (word >> (8 * (column % 4)).to(tl.uint32)) & 255
    return tl.reshape(draw < threshold, (rows.shape[0], BLOCKS * 16))
