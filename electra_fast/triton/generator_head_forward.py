"""Forward of generator_head: loss, sample and argmax in one pass over the vocabulary, logits never leaving a program.

`sweep_kernel` goes, for a block of slots, through a part of the vocabulary, group by group of 64 columns, and keeps for
each slot the largest logit, the sum of exponentials and the best score of a group (Gumbel-max, docs/design.md), and
beside them, in registers, the 64 logits of the group that has the largest logit and of the one that has the best score.
So neither the argmax nor the sample needs to know its column until `finish_kernel`, which adds up the parts in their
order and looks for the two columns. The scores' random part is made before, by `noise_kernel`: in the sweep each of the
four threads that share a row would make it again, at a third of what the sweep costs. 4 bytes for 64 logits.

Traffic: the weight once from memory and once a block of slots from L2; hidden once where it fits into a program (up to
one step of features), else once for each tile of the vocabulary, from L2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .generator_head_tiles import LN_2, LOG2_E, UNUSED, load_bias, load_tile, logits_tile
from .random import load_state, uniform, words

GROUP: tl.constexpr = tl.constexpr(64)
INSIDE_BLOCK: tl.constexpr = tl.constexpr(2**31)


@triton.jit
def log2_exponential(word):
    """log2 of the unit exponential -log1p(-u), u being `uniform` of the word: to a few roundings also where u is small
    and the exponential's own logarithm near 1 would lose its digits."""
    u = uniform(word)
    t = u / (2.0 - u)  # -log1p(-u) = 2 artanh t = 2 (t + t³/3 + t⁵/5 + …)
    x = t * t
    series = 1.0 / 17.0 + x * (1.0 / 19.0)
    series = 1.0 / 13.0 + x * (1.0 / 15.0 + x * series)
    series = 1.0 / 9.0 + x * (1.0 / 11.0 + x * series)
    series = 1.0 / 5.0 + x * (1.0 / 7.0 + x * series)
    small = 2.0 * t * (1.0 + x * (1.0 / 3.0 + x * series))
    large = -tl.log(1.0 - u)
    return tl.log2(tl.where(u < 0.5, small, large))


@triton.jit(do_not_specialize=["slots", "site"])
def noise_kernel(rng, noise, slots, site, rows, BLOCK_M: tl.constexpr):
    """`log2_exponential` of four groups of BLOCK_M slots, one call a slot, in ``noise [4·num_programs(1), rows]``."""
    slot = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    call = tl.program_id(1)
    seed, step = load_state(rng)
    drawn = words(seed, step, site, slot, call)
    for word in tl.static_range(4):
        place = noise + tl.cast(4 * call + word, tl.int64) * rows + slot
        tl.store(place, log2_exponential(drawn[word]), mask=slot < slots)


@triton.jit
def finite(x):
    """0 instead of -inf: what exponents are taken relative to where there is nothing yet."""
    return tl.where(x == float("-inf"), 0.0, x)


@triton.jit
def largest_and_sum(x):
    """Of each row of ``x [M, N]``: the largest, and the sum of ``2^(x - largest)``."""
    largest = tl.max(x, 1)
    return largest, tl.sum(tl.exp2(x - finite(largest)[:, None]), 1)


@triton.jit
def log2_of_sum(x):
    """log2 of a sum of exponentials whose largest is 1; anything finite where it is empty. A NaN stays one."""
    return tl.log2(tl.where(x == 0.0, 1.0, x))


@triton.jit
def halves(x):
    """``x [M, N]`` as two tensors ``[M, N/2]``."""
    return tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def split_groups(x, GROUPS: tl.constexpr):
    """The GROUPS (1, 2 or 4) groups ``[M, 64]`` of ``x [M, 64·GROUPS]``, in their order."""
    if GROUPS == 1:
        groups = (x,)
    elif GROUPS == 2:
        groups = halves(x)
    else:
        first, second = halves(x)
        a, b = halves(first)
        c, d = halves(second)
        groups = (a, b, c, d)
    return groups


@triton.jit
def first_of_largest(x):
    """The largest of each row of ``x [M, N]`` and its place, the first of equals."""
    largest = tl.max(x, 1)
    place = tl.arange(0, x.shape[1])[None, :]
    return largest, tl.min(tl.where(x == largest[:, None], place, x.shape[1]), 1)


@triton.jit(do_not_specialize=["slots", "steps"])
def sweep_kernel(
    hidden,
    weight,
    bias,
    targets,
    noise,
    partials,
    kept_groups,
    slots,
    steps,
    inverse_temperature,
    columns,
    rows,
    FEATURES: tl.constexpr,
    TEMPERED: tl.constexpr,
    DISALLOW: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (i, j): the i-th block of slots, ``steps`` tiles of the vocabulary from tile ``j·steps`` on.

    What it finds, per slot: in partials ``[131, parts, rows]`` the largest logit, the sum of exponentials, the best
    score and the logits of both groups (2 x ``[parts, rows, 64]``), in kept_groups ``[2, parts, rows]`` which they are;
    rows: slots, up to whole blocks.
    TEMPERED, DISALLOW: the sample is drawn from other logits than the loss.
    """
    GROUPS: tl.constexpr = BLOCK_N // GROUP
    first_slot = tl.program_id(0) * BLOCK_M
    slot = first_slot + tl.arange(0, BLOCK_M)
    target = tl.load(targets + slot, mask=slot < slots, other=UNUSED)
    if tl.max(target, 0) == UNUSED:
        return
    part = tl.program_id(1)
    if RESIDENT:
        h = load_tile(hidden, first_slot, slots, 0, FEATURES, BLOCK_M, BLOCK_K)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    score = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    top_group = tl.zeros((BLOCK_M,), tl.int32)
    score_group = tl.zeros((BLOCK_M,), tl.int32)
    kept_top = tl.full((BLOCK_M, GROUP), float("-inf"), tl.float32)
    kept_score = tl.full((BLOCK_M, GROUP), float("-inf"), tl.float32)
    for tile in range(part * steps, tl.minimum((part + 1) * steps, tl.cdiv(columns, BLOCK_N))):
        column = tile * BLOCK_N
        if RESIDENT:
            w = load_tile(weight, column, columns, 0, FEATURES, BLOCK_N, BLOCK_K)
            product = tl.dot(h, tl.trans(w), input_precision="ieee")
            logits = product * LOG2_E + load_bias(bias, column + tl.arange(0, BLOCK_N), columns)[None, :]
        else:
            logits = logits_tile(
                hidden, weight, bias, first_slot, slots, column, columns, FEATURES, BLOCK_M, BLOCK_N, BLOCK_K
            )
        of_tile = split_groups(logits, GROUPS)
        for place in tl.static_range(GROUPS):
            x = of_tile[place]
            group = tile * GROUPS + place
            noises = tl.load(noise + tl.cast(group, tl.int64) * rows + slot)
            largest, sums = largest_and_sum(x)
            better = largest > top
            top_group = tl.where(better, group, top_group)
            kept_top = tl.where(better[:, None], x, kept_top)
            new_top = tl.maximum(top, largest)
            reference = finite(new_top)
            mass = mass * tl.exp2(top - reference) + sums * tl.exp2(largest - reference)
            top = new_top
            if TEMPERED or DISALLOW:
                x *= inverse_temperature
                if DISALLOW:
                    inside = group * GROUP + tl.arange(0, GROUP)
                    x = tl.where(inside[None, :] == target[:, None], float("-inf"), x)
                largest, sums = largest_and_sum(x)
            new_score = largest + log2_of_sum(sums) - noises
            better = new_score > score
            score_group = tl.where(better, group, score_group)
            kept_score = tl.where(better[:, None], x, kept_score)
            score = tl.maximum(score, new_score)
    plane = tl.num_programs(1).to(tl.int64) * rows
    first_row = part.to(tl.int64) * rows + first_slot
    inside = tl.arange(0, BLOCK_M)
    place = partials + first_row + inside
    tl.store(place, top)
    tl.store(place + plane, mass)
    tl.store(place + 2 * plane, score)
    place = kept_groups + first_row + inside
    tl.store(place, top_group)
    tl.store(place + plane, score_group)
    place = partials + 3 * plane + first_row * GROUP + (inside[:, None] * GROUP + tl.arange(0, GROUP)[None, :])
    tl.store(place, kept_top)
    tl.store(place + GROUP * plane, kept_score)


@triton.jit
def best_group(values, groups, kept, row, rows):
    """Over the parts of ``row [M]``: the largest of ``values [M, PARTS]``, its group, and that group's logits
    ``[M, 64]``; -inf where there is none."""
    value, part = first_of_largest(values)
    any_ = value > float("-inf")
    row = row + part.to(tl.int64) * rows
    group = tl.load(groups + row, mask=any_, other=0)
    place = row[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    return value, group, tl.load(kept + place, mask=any_[:, None], other=float("-inf"))


@triton.jit(do_not_specialize=["slots", "parts", "rows", "site"])
def finish_kernel(
    hidden,
    weight,
    bias,
    targets,
    rng,
    partials,
    kept_groups,
    loss,
    sampled,
    predicted,
    lse,
    slots,
    parts,
    rows,
    site,
    columns,
    FEATURES: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A program per BLOCK_M slots. The target's logit is computed once more, from one row of the weight."""
    slot = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    real = slot < slots
    target = tl.load(targets + slot, mask=real, other=UNUSED)
    used = target != UNUSED
    part, inside = tl.arange(0, PARTS), tl.arange(0, GROUP)

    plane = parts.to(tl.int64) * rows
    kept = partials + 3 * plane
    place = partials + slot[:, None] + part.to(tl.int64)[None, :] * rows
    written = used[:, None] & (part[None, :] < parts)
    each_top = tl.load(place, mask=written, other=float("-inf"))
    each_mass = tl.load(place + plane, mask=written, other=0.0)
    top, group, logits = best_group(each_top, kept_groups, kept, slot, rows)
    mass = tl.sum(each_mass * tl.exp2(each_top - tl.where(top == float("-inf"), 0.0, top)[:, None]), 1)
    log_sum = (top + log2_of_sum(mass)) * LN_2
    _, column = first_of_largest(logits)
    tl.store(predicted + slot, tl.minimum(group * GROUP + column, columns - 1), mask=real)

    each_score = tl.load(place + 2 * plane, mask=written, other=float("-inf"))
    _, group, logits = best_group(each_score, kept_groups + plane, kept + GROUP * plane, slot, rows)
    largest = tl.max(logits, 1)
    weights = tl.exp2(logits - tl.where(largest == float("-inf"), 0.0, largest)[:, None])
    seed, step = load_state(rng)
    word, _, _, _ = words(seed, step, site, slot, INSIDE_BLOCK)
    beyond = tl.cumsum(weights, 1) > (uniform(word) * tl.sum(weights, 1))[:, None]
    first = tl.min(tl.where(beyond, inside[None, :], GROUP), 1)
    last = tl.max(tl.where(weights > 0.0, inside[None, :], 0), 1)
    tl.store(sampled + slot, group * GROUP + tl.minimum(first, last), mask=real)

    target = tl.where(used, target, 0)
    products = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for first_feature in range(0, FEATURES, BLOCK_K):
        h = load_tile(hidden, tl.program_id(0) * BLOCK_M, slots, first_feature, FEATURES, BLOCK_M, BLOCK_K)
        feature = first_feature + tl.arange(0, BLOCK_K)
        row = weight + target[:, None] * FEATURES + feature[None, :]
        w = tl.load(row, mask=(feature < FEATURES)[None, :], other=0.0)
        products += h.to(tl.float32) * w.to(tl.float32)
    of_target = tl.sum(products, 1) + tl.load(bias + target).to(tl.float32)
    tl.store(loss + slot, tl.where(used, log_sum - of_target, 0.0), mask=real)
    tl.store(lse + slot, tl.where(used, log_sum, 0.0), mask=real)
