"""Whole-word masking against the loop that it unrolls."""

from __future__ import annotations

import pytest
import torch

from electra_fast import ops, rng
from electra_fast.reference.mask_words import ROUNDS
from electra_fast.reference.philox import word_at

V, PAD, CLS, SEP, MASK = 50, 0, 1, 2, 3
SPECIAL = torch.tensor([PAD, CLS, SEP, MASK])
STARTS = torch.arange(V) % 5 < 2  # words of two and a half tokens on average
LENGTHS = (40, 3, 0, 90, 1, 17)


def make_batch(seed: int, lengths=LENGTHS, tail: int = 5):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, V, (sum(lengths) + tail,), generator=draw)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    for begin, end in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        if end > begin:
            ids[begin], ids[end - 1] = CLS, SEP
        if end - begin > 20:
            ids[begin + 9] = SEP
    ids[cu_seqlens[-1] :] = PAD
    return ids, cu_seqlens


def mask(ids, cu_seqlens, seed=0, probability=0.15, replace=0.85, slots=None, starts=STARTS):
    slots = ops.max_predictions_bound(len(ids), len(cu_seqlens) - 1, probability) if slots is None else slots
    rule = {"mask_id": MASK, "probability": probability, "max_predictions": slots, "replace_probability": replace}
    return ops.mask_words(ids, cu_seqlens, SPECIAL, starts, **rule, rng=rng.make(seed, 3), site=2)


def words_of(ids, begin: int, end: int) -> list[list[int]]:
    """Token indices of each word of a sequence."""
    words: list[list[int]] = []
    for t in range(begin, end):
        if ids[t] in SPECIAL:
            continue
        if t == begin or ids[t - 1] in SPECIAL or STARTS[ids[t]]:
            words.append([])
        words[-1].append(t)
    return words


def chosen_by_the_loop(ids, cu_seqlens, seed: int, probability: float) -> list[int]:
    """Words in the order of their keys; each is taken if it fits; ended by the fourth that does not fit."""
    key = word_at(torch.arange(len(ids)), 0, rng.make(seed, 3), 2).tolist()
    chosen = []
    for begin, end in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        words = sorted(words_of(ids, begin, end), key=lambda word: (key[word[0]], word[0]))
        candidates = sum(map(len, words))
        left = min(candidates, max(1, round((end - begin) * probability))) if end > begin else 0
        # A word too long for what was left when a pass began is passed over without ending that pass.
        passes, bound = 1, left
        for word in words:
            if len(word) <= left:
                chosen += word
                left -= len(word)
            elif len(word) <= bound:
                passes, bound = passes + 1, left
                if passes > ROUNDS:
                    break
    return sorted(chosen)


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.4, 1.0])
def test_follows_the_rule(probability):
    for seed in range(12):
        ids, cu_seqlens = make_batch(seed)
        masked = mask(ids, cu_seqlens, seed, probability)
        used = masked.targets != -100
        expected = chosen_by_the_loop(ids, cu_seqlens, seed, probability)
        assert masked.positions[used].tolist() == expected
        assert torch.equal(masked.targets[used], ids[masked.positions[used]])
        assert not masked.positions[~used].any()
        written = masked.input_ids != ids
        assert set(written.nonzero().flatten().tolist()) <= set(expected)
        assert (masked.input_ids[written] == MASK).all()


def test_the_budget_is_nearly_always_filled():
    """Up to the last tokens of the 300, where only longer words are left; never above."""
    filled = budget = 0
    for seed in range(30):
        ids, cu_seqlens = make_batch(seed, (100, 100, 100), 0)
        filled += (mask(ids, cu_seqlens, seed).targets != -100).sum().item()
        budget += 3 * 15
    assert 0.99 * budget < filled <= budget


def test_every_word_is_as_likely():
    """Of equal words, each is chosen in about its share of the draws."""
    ids = torch.tensor([CLS, *[5, 7] * 20, SEP])  # words of two tokens: 5 % 5 = 0 begins one, 7 % 5 = 2 does not
    cu_seqlens = torch.tensor([0, 42], dtype=torch.int32)
    draws = 700
    hits = torch.zeros(42)
    for seed in range(draws):
        masked = mask(ids, cu_seqlens, seed, probability=0.2)
        hits[masked.positions[masked.targets != -100]] += 1
    words = hits[1:-1].view(20, 2)
    assert torch.equal(words[:, 0], words[:, 1])
    share = 4 / 20  # of round(42 · 0.2) = 8 tokens
    assert (words[:, 0] / draws - share).abs().max() < 5 * (share * (1 - share) / draws) ** 0.5


def test_words_longer_than_the_budget_are_left_alone():
    ids = torch.tensor([CLS, 5, 7, 7, 7, SEP])
    assert (mask(ids, torch.tensor([0, 6], dtype=torch.int32)).targets == -100).all()


def test_a_token_after_a_special_one_begins_a_word():
    """Though its id does not say so: the first of a sentence may lack the space in front."""
    ids = torch.tensor([CLS, 7, 7, SEP, 7, 7, 7, SEP])
    masked = mask(ids, torch.tensor([0, 8], dtype=torch.int32), probability=0.25)
    assert masked.positions[masked.targets != -100].tolist() == [1, 2]


def test_tokens_that_all_begin_words_are_masked_as_by_mask_tokens():
    ids, cu_seqlens = make_batch(4)
    words = mask(ids, cu_seqlens, 9, starts=torch.ones(V, dtype=torch.bool))
    tokens = ops.mask_tokens(
        ids, cu_seqlens, SPECIAL, mask_id=MASK, probability=0.15, max_predictions=len(words.positions),
        rng=rng.make(9, 3), site=2,
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(words, tokens, strict=True))


def test_empty():
    for cu_seqlens in ([0], [0, 0]):
        masked = mask(torch.zeros(0, dtype=torch.long), torch.tensor(cu_seqlens, dtype=torch.int32), slots=2)
        assert masked.input_ids.numel() == 0
        assert masked.targets.tolist() == [-100, -100]


def test_compiles():
    ids, cu_seqlens = make_batch(1)
    rule = {"mask_id": MASK, "probability": 0.15, "max_predictions": 40, "rng": rng.make(1), "site": 0}
    compiled = torch.compile(ops.mask_words, fullgraph=True, backend="aot_eager")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            compiled(ids, cu_seqlens, SPECIAL, STARTS, **rule),
            ops.mask_words(ids, cu_seqlens, SPECIAL, STARTS, **rule),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"starts": STARTS.long()}, TypeError, "mask_words: word_starts must be bool, got int64"),
        ({"slots": 1}, ValueError, "mask_words: max_predictions must be at least the number of chosen tokens"),
        ({"slots": -1}, ValueError, "mask_words: max_predictions must be at least 0, got -1"),
        ({"probability": 1.5}, ValueError, "mask_words: probability"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        mask(*make_batch(0), **change)
