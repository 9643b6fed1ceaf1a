"""mask_tokens against a transcription of its rules in plain Python, and its statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.reference.philox import random_words

OP = "mask_tokens"
MASK, SPECIAL = 4, torch.tensor([0, 2, 3, 4])
LENGTHS = [[20], [1], [0, 7, 128, 0, 3], [2, 2, 2], [64, 512, 1, 33], [0, 0], [5] * 40]


def boundaries(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def make(lengths: list[int], padding: int = 3, vocabulary: int = 50) -> tuple[Tensor, Tensor]:
    """Sequences [CLS] … [SEP] of random ids, some of them special."""
    ids = torch.randint(vocabulary, (sum(lengths) + padding,))
    cu = boundaries(lengths)
    for start, end in zip(cu.tolist(), cu.tolist()[1:]):  # noqa: B905
        ids[start:end][:1], ids[start:end][-1:] = 2, 3
    return ids, cu


def word(state: Tensor, site: int, row: int, block: int, index: int) -> int:
    return int(random_words(torch.tensor([block]), row, state, site)[0, index])


def by_the_rules(
    ids: Tensor, cu: Tensor, state: Tensor, site: int, probability: float, cap: int | None, replace: float, again: bool
) -> tuple[list[int], list[int], list[int]]:
    """One sequence after another: ids, positions, targets."""
    out, positions = ids.tolist(), []
    decide = math.floor(replace * 2**32)
    for b, (start, end) in enumerate(zip(cu.tolist(), cu.tolist()[1:])):  # noqa: B905
        candidates = [t for t in range(start, end) if int(ids[t]) not in SPECIAL.tolist()]
        k = min(round((end - start) * probability), cap or end)
        k = min(max(1, k), len(candidates)) if end > start else 0
        if again:
            for d in range(k):
                t = candidates[(word(state, site, 2 + b, d // 4, d % 4) * len(candidates)) >> 32]
                positions.append(t)
                if word(state, site, 2 + b, 2**31 + d // 4, d % 4) < decide and t != start:
                    out[t] = MASK
        else:
            chosen = sorted(candidates, key=lambda t: (word(state, site, 0, t // 4, t % 4), t))[:k]
            positions.extend(sorted(chosen))
            for t in chosen:
                if word(state, site, 1, t // 4, t % 4) < decide:
                    out[t] = MASK
    return out, positions, [int(ids[t]) for t in positions]


@pytest.mark.parametrize("again", [False, True], ids=["without", "with"])
@pytest.mark.parametrize(
    ("probability", "cap", "replace"), [(0.15, None, 0.85), (0.5, 9, 0.5), (1.0, None, 1.0), (0.0, None, 0.0)]
)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_follows_the_rules(backend, lengths, probability, cap, replace, again) -> None:
    if max(lengths) > 200 and probability > 0.2:
        lengths = [n // 4 for n in lengths]
    ids, cu = make(lengths)
    slots = ops.max_predictions_bound(len(ids), len(lengths), probability)
    state, site = rng.make(7 + len(lengths), 2**32 + 3), 9
    masked, positions, targets = ops.mask_tokens(
        ids, cu, SPECIAL, mask_id=MASK, probability=probability, max_predictions=slots, max_per_sequence=cap,
        replace_probability=replace, with_replacement=again, rng=state, site=site,
    )  # fmt: skip
    out, where, what = by_the_rules(ids, cu, state, site, probability, cap, replace, again)
    unused = slots - len(where)
    assert masked.tolist() == out
    assert positions.tolist() == where + [0] * unused
    assert targets.tolist() == what + [-100] * unused


def test_first_token_is_never_written_with_replacement(backend) -> None:
    ids, cu = torch.arange(10, 14), boundaries([2, 2])
    writes = 0
    for seed in range(20):
        masked, positions, targets = ops.mask_tokens(
            ids, cu, SPECIAL, mask_id=MASK, probability=1.0, max_predictions=6, replace_probability=1.0,
            with_replacement=True, rng=rng.make(seed),
        )  # fmt: skip
        assert masked[0] == 10
        assert masked[2] == 12
        assert set(positions[:4].tolist()) <= {0, 1, 2, 3}
        assert (targets[:4] == ids[positions[:4]]).all()
        writes += int((masked == MASK).sum())
    assert writes > 0


def test_rounds_half_to_even(backend) -> None:
    """n · 0.5 for n = 1, 3, 5, 7: 0.5 → 0 (but at least 1), 1.5 → 2, 2.5 → 2, 3.5 → 4."""
    lengths = [1, 3, 5, 7]
    ids = torch.full((16,), 9)
    _, _, targets = ops.mask_tokens(
        ids, boundaries(lengths), SPECIAL, mask_id=MASK, probability=0.5, max_predictions=20, rng=rng.make(0)
    )
    assert int((targets != -100).sum()) == 1 + 2 + 2 + 4


def test_only_special_tokens(backend) -> None:
    ids = torch.tensor([2, 3, 2, 0, 3])
    for again in (False, True):
        masked, positions, targets = ops.mask_tokens(
            ids, boundaries([2, 3]), SPECIAL, mask_id=MASK, probability=0.5, max_predictions=4,
            with_replacement=again, rng=rng.make(0),
        )  # fmt: skip
        assert torch.equal(masked, ids)
        assert positions.tolist() == [0] * 4
        assert targets.tolist() == [-100] * 4


@pytest.mark.parametrize("again", [False, True])
def test_empty(backend, again) -> None:
    for ids, cu in ((torch.ones(0).long(), [0, 0]), (torch.ones(3).long(), [0]), (torch.ones(0).long(), [0])):
        masked, positions, targets = ops.mask_tokens(
            ids, torch.tensor(cu, dtype=torch.int32), SPECIAL, mask_id=MASK, probability=0.5, max_predictions=2,
            with_replacement=again, rng=rng.make(0),
        )  # fmt: skip
        assert torch.equal(masked, ids)
        assert positions.tolist() == [0, 0]
        assert targets.tolist() == [-100, -100]
    ids, cu = make([6])
    nothing = ops.mask_tokens(
        ids * 0, cu, SPECIAL, mask_id=MASK, probability=0.5, max_predictions=0, with_replacement=again, rng=rng.make(0)
    )
    assert nothing.positions.shape == (0,)


def test_every_candidate_is_as_likely(backend) -> None:
    """How often each of 30 places is chosen in 3000 sequences: χ² within 4 standard deviations."""
    sequences, length = 3000, 32
    ids = torch.full((sequences, length), 9)
    ids[:, 0], ids[:, -1] = 2, 3
    chosen = ops.mask_tokens(
        ids.flatten(), boundaries([length] * sequences), SPECIAL, mask_id=MASK, probability=0.25,
        max_predictions=sequences * 8, rng=rng.make(5),
    )  # fmt: skip
    assert int((chosen.targets != -100).sum()) == sequences * 8
    counts = torch.bincount(chosen.positions % length, minlength=length)[1:-1].double()
    expected = sequences * 8 / 30
    statistic = ((counts - expected) ** 2 / (expected * (1 - 8 / 30))).sum()  # draws without replacement vary less
    assert abs(statistic - 29) < 4 * (2 * 29) ** 0.5
    rate = (chosen.input_ids == MASK).sum() / (sequences * 8)
    assert abs(rate - 0.85) < 4 * (0.85 * 0.15 / (sequences * 8)) ** 0.5


@pytest.mark.parametrize(
    ("length", "draws", "table"), [(128, 19, (17.69, 0.075, 0.861)), (512, 77, (71.55, 0.074, 0.861))]
)
def test_google_table(backend, length, draws, table) -> None:
    """With replacement: places hit in a sequence, the share of them hit twice or more, and P([MASK] | hit).

    Measured within 4 standard deviations of the expectation, which lies at the rounded figures (``table``) that a
    simulation of google-research/electra's rule gave at 15 %.
    """
    n = length - 2
    untouched, once = (1 - 1 / n) ** draws, draws / n * (1 - 1 / n) ** (draws - 1)
    hit = 1 - untouched
    expected = (n * hit, (hit - once) / hit, 1 - ((1 - 0.85 / n) ** draws - untouched) / hit)
    assert expected == (
        pytest.approx(table[0], rel=2e-3),
        pytest.approx(table[1], abs=5e-3),
        pytest.approx(table[2], abs=3e-3),
    )

    sequences = 256000 // length
    ids = torch.full((sequences, length), 9)
    ids[:, 0], ids[:, -1] = 2, 3
    masked, positions, targets = ops.mask_tokens(
        ids.flatten(), boundaries([length] * sequences), SPECIAL, mask_id=MASK, probability=0.15,
        max_predictions=sequences * (draws + 1), with_replacement=True, rng=rng.make(0),
    )  # fmt: skip
    used = targets != -100
    assert int(used.sum()) == sequences * draws
    hits = torch.bincount(positions[used], minlength=ids.numel())
    places = int((hits > 0).sum())
    assert places / sequences == pytest.approx(expected[0], rel=0.003)
    for measured, share in ((hits > 1, expected[1]), (masked == MASK, expected[2])):
        assert int(measured.sum()) / places == pytest.approx(share, abs=4 * (share * (1 - share) / places) ** 0.5)


def test_step_and_site_change_the_choice(backend) -> None:
    ids, cu = make([200])

    def positions(state: Tensor, site: int) -> list[int]:
        return ops.mask_tokens(
            ids, cu, SPECIAL, mask_id=MASK, probability=0.15, max_predictions=31, rng=state, site=site
        ).positions.tolist()

    base = positions(rng.make(1, 1), 1)
    assert base == positions(rng.make(1, 1 + 2**32), 1)  # the low 32 bits of the step count
    assert (
        len(
            {
                tuple(p)
                for p in (
                    base,
                    positions(rng.make(2, 1), 1),
                    positions(rng.make(1, 2), 1),
                    positions(rng.make(1, 1), 2),
                )
            }
        )
        == 4
    )


@pytest.mark.parametrize("again", [False, True])
def test_deterministic(backend, again, assert_deterministic) -> None:
    ids, cu = make([100, 1, 300, 0, 77])
    assert_deterministic(
        lambda: ops.mask_tokens(
            ids, cu, SPECIAL, mask_id=MASK, probability=0.2, max_predictions=102, with_replacement=again,
            rng=rng.make(3),
        )
    )  # fmt: skip


def test_non_contiguous(backend) -> None:
    ids, cu = make([40, 24])
    wide = torch.stack([ids, ids + 1], 1)[:, 0]
    options = {"mask_id": MASK, "probability": 0.2, "max_predictions": 20, "rng": rng.make(3)}
    for a, b in zip(
        ops.mask_tokens(wide, cu, SPECIAL, **options), ops.mask_tokens(ids, cu, SPECIAL, **options), strict=True
    ):
        assert torch.equal(a, b)
    assert torch.equal(wide, ids)


@pytest.mark.parametrize("again", [False, True])
def test_opcheck(native_op, again) -> None:
    ids, cu = make([9, 0, 5])
    torch.library.opcheck(native_op, (ids, cu, SPECIAL, MASK, 0.3, 8, -1, 0.85, again, rng.make(3), 2))


@pytest.mark.parametrize("again", [False, True])
def test_compiles(backend, again) -> None:
    ids, cu = make([9, 0, 5])

    def run(ids: Tensor, cu: Tensor, state: Tensor) -> ops.MaskedTokens:
        return ops.mask_tokens(
            ids, cu, SPECIAL, mask_id=MASK, probability=0.3, max_predictions=8, with_replacement=again, rng=state
        )

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(ids, cu, rng.make(4)), run(ids, cu, rng.make(4)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.reads_values
def test_too_few_slots(backend) -> None:
    ids, cu = torch.full((20,), 9), boundaries([10, 10])
    with pytest.raises(ValueError, match=r"mask_tokens.*max_predictions"):
        ops.mask_tokens(ids, cu, SPECIAL, mask_id=MASK, probability=0.5, max_predictions=9, rng=rng.make(0))


@pytest.mark.parametrize("cu", [[1, 6], [0, 4, 3, 6], [0, 7]])
@pytest.mark.reads_values
def test_bad_boundaries(backend, cu) -> None:
    with pytest.raises(ValueError, match=r"mask_tokens.*cu_seqlens"):
        ops.mask_tokens(
            torch.ones(6).long(), torch.tensor(cu, dtype=torch.int32), SPECIAL, mask_id=MASK, probability=0.5,
            max_predictions=9, rng=rng.make(0),
        )  # fmt: skip


@pytest.mark.parametrize(("tokens", "sequences", "probability"), [(1000, 7, 0.15), (64, 64, 0.15), (40, 1, 1.0)])
def test_bound_suffices(tokens, sequences, probability) -> None:
    bound = ops.max_predictions_bound(tokens, sequences, probability)
    for lengths in ([tokens - sequences + 1] + [1] * (sequences - 1), [tokens // sequences] * sequences):
        assert sum(max(1, round(n * probability)) for n in lengths) <= bound


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_ids": torch.ones(6).int()}, TypeError, "mask_tokens: input_ids must be int64, got int32"),
        ({"input_ids": torch.ones(2, 3).long()}, ValueError, r"mask_tokens: input_ids must have shape \[\*\]"),
        ({"cu_seqlens": torch.tensor([0, 6])}, TypeError, "mask_tokens: cu_seqlens must be int32, got int64"),
        ({"special_ids": [0]}, TypeError, "mask_tokens: special_ids must be a Tensor, got list"),
        ({"probability": 1.1}, ValueError, r"mask_tokens: probability must be in \[0.0, 1.0\], got 1.1"),
        ({"replace_probability": -1.0}, ValueError, "mask_tokens: replace_probability must be in"),
        ({"max_predictions": -1}, ValueError, "mask_tokens: max_predictions must be at least 0, got -1"),
        ({"max_per_sequence": 0}, ValueError, "mask_tokens: max_per_sequence must be at least 1 or None, got 0"),
        ({"rng": None}, TypeError, "mask_tokens: rng must be a Tensor, got NoneType"),
        ({"site": 2**32}, ValueError, "mask_tokens: site must be in"),
    ],
)
def test_errors(change, error, message) -> None:
    arguments = {
        "input_ids": torch.ones(6).long(), "cu_seqlens": boundaries([6]), "special_ids": SPECIAL, "mask_id": MASK,
        "probability": 0.5, "max_predictions": 9, "rng": rng.make(0), **change,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        ops.mask_tokens(**arguments)
