"""The Triton kernels of mask_tokens against the reference, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.triton import registration

MASK, SPECIAL = 4, torch.tensor([0, 2, 3, 4])
LENGTHS = [[20], [1], [0, 7, 128, 0, 3], [2, 2, 2], [64, 600, 1, 33], [0, 0], [5] * 6, []]


def make(lengths: list[int], padding: int = 3, vocabulary: int = 50) -> tuple[Tensor, Tensor]:
    """Sequences [CLS] … [SEP] of random ids, some of them special, and padding."""
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    ids = torch.randint(vocabulary, (sum(lengths) + padding,))
    ids[cu[:-1][torch.tensor(lengths, dtype=torch.int64) > 0].long()] = 2
    return ids, cu


def check(
    device: str, ids: Tensor, cu: Tensor, special: Tensor = SPECIAL, state: Tensor | None = None, **options
) -> list:
    arguments = {
        "probability": 0.15, "max_predictions": ops.max_predictions_bound(len(ids), len(cu) - 1, 0.15),
        "max_per_sequence": -1, "replace_probability": 0.85, "with_replacement": False, "site": 3, **options,
    }  # fmt: skip
    state = rng.make(5, 2) if state is None else state
    order = ("probability", "max_predictions", "max_per_sequence", "replace_probability", "with_replacement")
    values = [arguments[name] for name in order]
    expected = reference.mask_tokens(ids, cu, special, MASK, *values, state, arguments["site"])
    cap = {"max_per_sequence": None} if arguments["max_per_sequence"] == -1 else {}
    with ops.use_backend("triton"):
        actual = ops.mask_tokens(
            ids.to(device), cu.to(device), special.to(device), mask_id=MASK, rng=state.to(device), **arguments | cap
        )
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a.cpu(), b)
    return [x.cpu() for x in actual]


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_matches_reference(lengths, with_replacement, device) -> None:
    check(device, *make(lengths), with_replacement=with_replacement)


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"max_per_sequence": 3}, {"probability": 0.0}, {"probability": 1.0, "max_predictions": 300},
        {"replace_probability": 0.0}, {"replace_probability": 1.0}, {"site": 2**32 - 1}, {"max_predictions": 200},
    ],
    ids=str,
)  # fmt: skip
def test_options(options, with_replacement, device) -> None:
    check(device, *make([9, 0, 130, 31]), with_replacement=with_replacement, **options)


@pytest.mark.parametrize("state", [(0, 0), (-7, 2**33 + 6), (2**63 - 1, -1)], ids=str)
def test_seeds(state, device) -> None:
    for with_replacement in (False, True):
        check(device, *make([40, 60]), state=rng.make(*state), with_replacement=with_replacement)


def test_rounds_half_to_even_in_float64(device) -> None:
    """Lengths whose product with the probability is a half, exactly or only after rounding to float64: 0.15 · 30 is 4.5
    in float64, and just below it in exact arithmetic, as 0.15 is."""
    for lengths, probability in (([2, 6, 10, 14], 0.25), ([30, 50, 70, 90, 110], 0.15), ([5, 15, 25, 35], 0.3)):
        check(device, *make(lengths), probability=probability, max_predictions=200)


def test_everything_or_nothing_special(device) -> None:
    ids, cu = make([12, 8])
    check(device, ids, cu, special=torch.arange(50))
    check(device, ids, cu, special=torch.empty(0, dtype=torch.int64))


def test_slots_that_do_not_suffice(device, triton_backend) -> None:
    """An error on the CPU for the other backends; here the first tokens, in order, and no others are masked."""
    ids, cu = make([40, 40], 0)
    full, positions, targets = check(device, ids, cu)
    state = rng.make(5, 2, device)
    few, first, target = ops.mask_tokens(
        ids.to(device), cu.to(device), SPECIAL.to(device), mask_id=MASK, probability=0.15, max_predictions=5, rng=state,
        site=3,
    )  # fmt: skip
    assert torch.equal(first.cpu(), positions[:5])
    assert torch.equal(target.cpu(), targets[:5])
    last = int(positions[4])
    assert torch.equal(few.cpu(), torch.cat([full[: last + 1], ids[last + 1 :]]))


@pytest.mark.parametrize(("wanted", "words"), [
    (3, [9, 5, 7, 5, 5, 1]), (2, [5, 5, 5, 5]), (4, [2**32 - 1, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1]), (1, [0, 0]),
])  # fmt: skip
def test_equal_words(wanted, words, device) -> None:
    """Words that occur several times, which seeds hardly give: the first tokens win."""
    from electra_fast.triton import mask_tokens

    n = len(words)
    held = torch.tensor([*words, 0], device=device)  # one token more than the sequence, with the smallest word
    cu = torch.tensor([0, n], dtype=torch.int32, device=device)
    chosen = torch.empty((3, 1), dtype=torch.int64, device=device)
    nothing = torch.empty(0, dtype=torch.int32, device=device)
    mask_tokens.choose_kernel[(1,)](held, cu, chosen, nothing, wanted, 1, 0x3FF0000000000000, False, BLOCK_N=4)
    ids = torch.arange(100, 101 + n, device=device)
    masked, positions, targets = ids.clone(), torch.full((n,), -1, device=device), torch.full((n,), -1, device=device)
    state = rng.make(1, 2, device)
    mask_tokens.write_kernel[(1,)](
        ids, cu, held, chosen, chosen[0], state, masked, positions, targets, MASK, n, 1, 0, 2**32, BLOCK_N=4
    )
    expected = sorted(sorted(range(n), key=lambda t: (words[t], t))[:wanted])
    assert positions[:wanted].tolist() == expected
    assert targets[:wanted].tolist() == [100 + t for t in expected]
    assert masked.tolist() == [MASK if t in expected else 100 + t for t in range(n + 1)]


def test_opcheck(device) -> None:
    ids, cu = (x.to(device) for x in make([9, 4]))
    operation = torch.ops.electra_fast_triton.mask_tokens.default
    arguments = (ids, cu, SPECIAL.to(device), MASK, 0.15, 5, -1, 0.85, False, rng.make(1, 2, device), 0)
    torch.library.opcheck(operation, arguments, test_utils=("test_schema", "test_faketensor"))
    assert registration.missing("mask_tokens", device, ()) is None
