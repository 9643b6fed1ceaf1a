"""mask_tokens: which tokens are masked, without sorting and without a look from the host.

Three steps, a kernel each. `prepare_kernel` gives every token its selection word, or a word beyond all others where it
cannot be chosen. `choose_kernel`, a program per sequence, finds the number k to choose and the k-th smallest word by
bisection over the 32 bits (with replacement: it lists the candidates). The sequences' first slots are a running sum of
their k. `write_kernel` or `draw_kernel`, a program per sequence, fills the slots and writes [MASK].
"""

from __future__ import annotations

import math
import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import configuration
from .launch import divide_up, launch, on
from .random import load_state, word_at

NEVER = tl.constexpr(2**32)  # the word of a token that cannot be chosen
UNUSED = tl.constexpr(-100)
SELECTION_ROW, DECISION_ROW, REPLACEMENT_ROW = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
REPLACEMENT_DECISION_BLOCK = tl.constexpr(2**31)


@triton.jit(do_not_specialize=["tokens", "specials", "slots", "site"])
def prepare_kernel(
    input_ids, special_ids, rng, masked_ids, words, positions, targets, tokens, specials, slots, site,
    WITH_REPLACEMENT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program i: tokens and slots ``i·BLOCK_N …``. Copies the ids, empties the slots, writes the words."""
    token = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = token < tokens
    id = tl.load(input_ids + token, mask=inside, other=0)
    tl.store(masked_ids + token, id, mask=inside)
    tl.store(positions + token, tl.zeros_like(id), mask=token < slots)
    tl.store(targets + token, tl.full((BLOCK_N,), UNUSED, tl.int64), mask=token < slots)
    word = tl.zeros((BLOCK_N,), tl.int64)
    if not WITH_REPLACEMENT:
        seed, step = load_state(rng)
        word = word_at(seed, step, site, SELECTION_ROW, token, 0).to(tl.int64)
    for k in range(0, specials):
        word = tl.where(id == tl.load(special_ids + k), NEVER, word)
    tl.store(words + token, word, mask=inside)


@triton.jit
def count_below(words, begin, end, limit, BLOCK_N: tl.constexpr):
    """How many of ``words[begin … end)`` are below the limit."""
    total = tl.zeros((BLOCK_N,), tl.int32)
    for first in range(begin, end, BLOCK_N):
        token = first + tl.arange(0, BLOCK_N)
        word = tl.load(words + token, mask=token < end, other=NEVER)
        total += (word < limit).to(tl.int32)
    return tl.sum(total, 0)


@triton.jit
def number_to_choose(length, candidates, probability_bits, max_per_sequence):
    """``max(1, min(cap, round(length · probability)))``, at most ``candidates``; the product in float64, half to even.

    Numbers in Triton's arguments are float32, so the probability comes as the 64 bits of a float64.
    """
    product = length.to(tl.float64) * tl.cast(probability_bits, tl.int64).to(tl.float64, bitcast=True)
    number = product.to(tl.int64)
    fraction = product - number.to(tl.float64)
    number += ((fraction > 0.5) | ((fraction == 0.5) & (number % 2 == 1))).to(tl.int64)
    number = tl.where(max_per_sequence >= 0, tl.minimum(number, max_per_sequence), number)
    number = tl.minimum(tl.maximum(number, 1), candidates)
    return tl.where(length > 0, number, 0)


@triton.jit(do_not_specialize=["max_per_sequence", "sequences", "probability_bits"])
def choose_kernel(
    words, cu_seqlens, chosen, candidates, max_per_sequence, sequences, probability_bits,
    WITH_REPLACEMENT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program b: sequence b. ``chosen [3, B]``: its k, and

    without replacement: the k-th smallest word, and how many tokens with that word are chosen (the first ones);
    with replacement: the number of candidates, whose places are listed in ``candidates`` from the sequence's begin on.
    """
    sequence = tl.program_id(0)
    begin, end = tl.load(cu_seqlens + sequence), tl.load(cu_seqlens + sequence + 1)
    available = count_below(words, begin, end, NEVER, BLOCK_N)
    number = number_to_choose(end - begin, available, probability_bits, max_per_sequence)
    tl.store(chosen + sequence, number)
    if WITH_REPLACEMENT:
        tl.store(chosen + sequences + sequence, available.to(tl.int64))
        listed = begin
        for first in range(begin, end, BLOCK_N):
            token = first + tl.arange(0, BLOCK_N)
            candidate = tl.load(words + token, mask=token < end, other=NEVER) < NEVER
            rank = listed + tl.cumsum(candidate.to(tl.int32), 0) - 1
            tl.store(candidates + rank, token, mask=candidate)
            listed += tl.sum(candidate.to(tl.int32), 0)
    else:
        low, high = tl.zeros_like(number), tl.zeros_like(number) + (NEVER - 1)
        for _ in range(32):  # the smallest word that at least `number` words do not exceed
            middle = (low + high) // 2
            enough = count_below(words, begin, end, middle + 1, BLOCK_N) >= number
            low, high = tl.where(enough, low, middle + 1), tl.where(enough, middle, high)
        tl.store(chosen + sequences + sequence, low)
        tl.store(chosen + 2 * sequences + sequence, number - count_below(words, begin, end, low, BLOCK_N))


@triton.jit(do_not_specialize=["mask_id", "slots", "sequences", "site", "decide"])
def write_kernel(
    input_ids, cu_seqlens, words, chosen, last_slots, rng, masked_ids, positions, targets, mask_id, slots,
    sequences, site, decide, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program b: sequence b, without replacement. Its slots begin at ``last_slots[b] - k``."""
    sequence = tl.program_id(0)
    begin, end = tl.load(cu_seqlens + sequence), tl.load(cu_seqlens + sequence + 1)
    limit = tl.load(chosen + sequences + sequence)
    ties = tl.load(chosen + 2 * sequences + sequence)
    slot = tl.load(last_slots + sequence) - tl.load(chosen + sequence)
    seed, step = load_state(rng)
    seen_ties = tl.zeros_like(ties)
    for first in range(begin, end, BLOCK_N):
        token = first + tl.arange(0, BLOCK_N)
        word = tl.load(words + token, mask=token < end, other=NEVER)
        tie = (word == limit).to(tl.int32)
        take = (word < limit) | ((tie == 1) & (seen_ties + tl.cumsum(tie, 0) <= ties))
        seen_ties += tl.sum(tie, 0)
        place = slot + tl.cumsum(take.to(tl.int32), 0) - 1
        slot += tl.sum(take.to(tl.int32), 0)
        take = take & (place < slots)
        tl.store(positions + place, token.to(tl.int64), mask=take)
        tl.store(targets + place, tl.load(input_ids + token, mask=take, other=0), mask=take)
        hide = take & (word_at(seed, step, site, DECISION_ROW, token, 0).to(tl.int64) < decide)
        tl.store(masked_ids + token, tl.zeros_like(word) + mask_id, mask=hide)


@triton.jit(do_not_specialize=["mask_id", "slots", "sequences", "site", "decide"])
def draw_kernel(
    input_ids, cu_seqlens, candidates, chosen, last_slots, rng, masked_ids, positions, targets, mask_id, slots,
    sequences, site, decide, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Program b: sequence b, with replacement: a slot for each draw, from ``last_slots[b] - k`` on."""
    sequence = tl.program_id(0)
    begin = tl.load(cu_seqlens + sequence)
    number, available = tl.load(chosen + sequence), tl.load(chosen + sequences + sequence)
    slot = tl.load(last_slots + sequence) - number
    seed, step = load_state(rng)
    row = REPLACEMENT_ROW + sequence
    for first in range(0, number, BLOCK_N):
        draw = first + tl.arange(0, BLOCK_N)
        place = slot + draw
        drawn = (draw < number) & (place < slots)
        pick = (word_at(seed, step, site, row, draw, 0).to(tl.int64) * available) >> 32
        token = tl.load(candidates + begin + pick, mask=drawn, other=0).to(tl.int64)
        tl.store(positions + place, token, mask=drawn)
        tl.store(targets + place, tl.load(input_ids + token, mask=drawn, other=0), mask=drawn)
        decision = word_at(seed, step, site, row, draw, REPLACEMENT_DECISION_BLOCK).to(tl.int64)
        hide = drawn & (decision < decide) & (token != begin)
        tl.store(masked_ids + token, tl.zeros_like(token) + mask_id, mask=hide)


def forward(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    special_ids: Tensor,
    mask_id: int,
    probability: float,
    max_predictions: int,
    max_per_sequence: int,
    replace_probability: float,
    with_replacement: bool,
    rng: Tensor,
    site: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids with [MASK] written in ``[T]``, positions and targets ``[P]``; chosen tokens beyond P slots are left out."""
    input_ids, cu_seqlens, special_ids = input_ids.contiguous(), cu_seqlens.contiguous(), special_ids.contiguous()
    tokens, sequences, slots = input_ids.shape[0], cu_seqlens.shape[0] - 1, max_predictions
    device = input_ids.device
    masked_ids = torch.empty_like(input_ids)
    positions, targets = (torch.empty(slots, dtype=torch.int64, device=device) for _ in range(2))
    if max(tokens, slots) == 0:
        return masked_ids, positions, targets
    words = torch.empty(tokens, dtype=torch.int64, device=device)
    chosen = torch.empty((3, sequences), dtype=torch.int64, device=device)
    candidates = torch.empty(tokens if with_replacement else 0, dtype=torch.int32, device=device)
    decide = math.floor(replace_probability * 2**32)
    probability_bits = struct.unpack("<q", struct.pack("<d", probability))[0]
    c = configuration("integers", device)
    block = c.block_n
    with on(device):
        launch(
            prepare_kernel,
            c,
            (divide_up(max(tokens, slots), block),),
            (input_ids, special_ids, rng, masked_ids, words, positions, targets),
            (tokens, special_ids.shape[0], slots, site),
            (with_replacement, block),
        )
        if tokens and sequences:
            launch(
                choose_kernel,
                configuration("integers", device, "rounded"),
                (sequences,),
                (words, cu_seqlens, chosen, candidates),
                (max_per_sequence, sequences),
                (probability_bits, with_replacement, block),
            )
            last_slots = chosen[0].cumsum(0)
            write, listed = (draw_kernel, candidates) if with_replacement else (write_kernel, words)
            launch(
                write,
                c,
                (sequences,),
                (input_ids, cu_seqlens, listed, chosen, last_slots, rng, masked_ids, positions, targets),
                (mask_id, slots, sequences, site),
                (decide, block),
            )
    return masked_ids, positions, targets
