"""The CUDA kernels of mask_tokens in the emulator, through their torch boundary: bit for bit the reference's choice."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from electra_fast import reference, rng
from electra_fast.reference.philox import word_at

MASK = 4


@pytest.fixture(scope="module")
def mask_tokens(emulator):
    return emulator.load("mask_tokens").mask_tokens


def make(
    lengths: list[int], padding: int = 0, specials: int = 3, vocabulary: int = 40
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of sequences of these lengths end to end, a few of them special; padding holds ids like any other."""
    cu = torch.tensor([0, *lengths]).cumsum(0).int()
    return torch.randint(vocabulary, (sum(lengths) + padding,)), cu, torch.randperm(vocabulary)[:specials]


def options(  # in the schema's order
    mask_id: int = MASK, probability: float = 0.15, max_predictions: int = 0, max_per_sequence: int = -1,
    replace_probability: float = 0.85, again: bool = False, seed: int = 2**40 + 3, step: int = 2**33 + 5, site: int = 7,
) -> tuple:  # fmt: skip
    return (
        mask_id,
        probability,
        max_predictions,
        max_per_sequence,
        replace_probability,
        again,
        rng.make(seed, step),
        site,
    )


def assert_equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def bound(cu: Tensor, probability: float) -> int:
    return int(int(cu[-1]) * probability) + len(cu) - 1


LENGTHS = {
    "one token": [1],
    "empty and short": [5, 0, 3, 1, 0, 0],
    "unaligned": [7, 33, 32, 31, 2, 65],
    "a step's": [128, 77, 512, 0, 300],
    "long": [1500],
    "more sequences than a block places": [3, 9, 0, 4] * 17,
}


@pytest.mark.parametrize("again", [False, True], ids=["distinct", "replacement"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("probability", [0.15, 0.5, 0.0, 1.0])
def test_equals_the_reference(mask_tokens, lengths, probability, again) -> None:
    inputs = make(lengths, padding=9)
    rest = options(probability=probability, max_predictions=bound(inputs[1], probability) + 3, again=again)
    expected = reference.mask_tokens(*inputs, *rest)
    assert_equal(mask_tokens(*inputs, *rest), expected)
    assert int((expected[2] != -100).sum()) > 0


@pytest.mark.parametrize("again", [False, True], ids=["distinct", "replacement"])
def test_options(mask_tokens, again) -> None:
    inputs = make([200, 20, 3])
    for change in (
        {"max_per_sequence": 5}, {"max_per_sequence": 1, "probability": 0.9}, {"replace_probability": 0.0},
        {"replace_probability": 1.0}, {"mask_id": 2**40}, {"site": 0}, {"seed": 1}, {"step": 0}, {"seed": 2**63 - 1},
    ):  # fmt: skip
        rest = options(max_predictions=210, again=again, **change)
        assert_equal(mask_tokens(*inputs, *rest), reference.mask_tokens(*inputs, *rest))


@pytest.mark.parametrize("specials", [0, 1, 40])
def test_specials(mask_tokens, specials) -> None:
    """None, one, and so many that nothing can be chosen."""
    inputs = make([90, 10], specials=specials)
    for again in (False, True):
        rest = options(probability=0.3, max_predictions=40, again=again)
        assert_equal(mask_tokens(*inputs, *rest), reference.mask_tokens(*inputs, *rest))
    assert specials < 40 or (mask_tokens(*inputs, *rest)[2] == -100).all()


def test_half_to_even(mask_tokens) -> None:
    """2.5 becomes 2, 3.5 becomes 4; the product is one of float64, where 0.07 · 50 is a little more than 3.5."""
    for length, probability, number in ((10, 0.25, 2), (14, 0.25, 4), (10, 0.15, 2), (30, 0.15, 4), (50, 0.07, 4)):
        ids, cu, _ = make([length])
        none = torch.zeros(0, dtype=torch.int64)
        _, _, targets = mask_tokens(ids, cu, none, *options(probability=probability, max_predictions=10))
        assert int((targets != -100).sum()) == number == round(length * probability)


def test_equal_words_go_by_index(mask_tokens) -> None:
    """Two of 100,000 words are equal; the cut is made between them, and the one with the lower index is chosen."""
    tokens = 100_000
    token = torch.arange(tokens)
    for seed in range(20):
        words = word_at(token, 0, rng.make(seed), 3)
        order = torch.argsort(words, stable=True)
        equal = (words[order][1:] == words[order][:-1]).nonzero()
        if len(equal):
            break
    first = int(equal[0])  # number of words before the pair
    inputs = torch.full((tokens,), 9), torch.tensor([0, tokens]).int(), torch.tensor([2, 3])
    arguments = options(probability=(first + 1) / tokens, max_predictions=first + 1, seed=seed, step=0, site=3)
    _, positions, _ = mask_tokens(*inputs, *arguments)
    assert torch.equal(positions, order[: first + 1].sort().values)
    assert order[first] < order[first + 1]


@pytest.mark.parametrize("again", [False, True], ids=["distinct", "replacement"])
def test_too_few_slots_drop_the_last(mask_tokens, monkeypatch, again) -> None:
    """An error on the CPU; on CUDA the tokens without a slot stay as they are, like in the reference there."""
    module = importlib.import_module("electra_fast.reference.mask_tokens")
    monkeypatch.setattr(module, "values_readable", lambda _: False)
    inputs = make([50, 40, 30])
    for slots in (0, 1, 30, 44):
        rest = options(probability=0.4, max_predictions=slots, again=again)
        assert_equal(mask_tokens(*inputs, *rest), reference.mask_tokens(*inputs, *rest))


@pytest.mark.parametrize("again", [False, True], ids=["distinct", "replacement"])
def test_any_order_of_threads(mask_tokens, emulator, again) -> None:
    inputs = make([60, 1, 0, 100] * 9)
    rest = options(max_predictions=bound(inputs[1], 0.15), again=again)
    emulator.same_under_every_schedule(lambda: mask_tokens(*inputs, *rest), random_runs=2)


def test_nothing(mask_tokens) -> None:
    for tokens, cu, slots in ((0, [0, 0], 2), (3, [0], 2), (0, [0], 0), (6, [0, 6], 0)):
        ids = torch.full((tokens,), 9)
        masked, positions, targets = mask_tokens(
            ids, torch.tensor(cu, dtype=torch.int32), torch.tensor([2]), *options(max_predictions=slots)
        )
        assert torch.equal(masked, ids)
        assert positions.tolist() == [0] * slots
        assert targets.tolist() == [-100] * slots


@pytest.mark.parametrize("cu", [[-4, 9], [0, 9], [0, 4, 3, 6], [5, 2]])
def test_bad_boundaries_stay_inside(mask_tokens, cu) -> None:
    """The host cannot look; the emulator would see an access outside."""
    ids, _, special = make([6])
    for again in (False, True):
        mask_tokens(ids, torch.tensor(cu, dtype=torch.int32), special, *options(max_predictions=9, again=again))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.int32}, r"mask_tokens: input_ids must be int64 of shape \[T\], got \[6\]"),
        ({1: torch.int64}, r"mask_tokens: cu_seqlens must be int32 of shape \[B\+1\], got \[2\]"),
        ({2: torch.int32}, r"mask_tokens: special_ids must be int64 of shape \[n\], got \[3\]"),
        ({"probability": 1.1}, r"mask_tokens: probability must be in \[0, 1\], got 1.1"),
        ({"replace_probability": -0.5}, r"mask_tokens: replace_probability must be in \[0, 1\], got -0.5"),
        ({"max_predictions": -1}, "mask_tokens: max_predictions must be at least 0, got -1"),
    ],
)
def test_errors(mask_tokens, change, message) -> None:
    inputs = [x.to(change.get(i, x.dtype)) for i, x in enumerate(make([6]))]
    with pytest.raises(RuntimeError, match=message):
        mask_tokens(*inputs, *options(**{name: value for name, value in change.items() if isinstance(name, str)}))
