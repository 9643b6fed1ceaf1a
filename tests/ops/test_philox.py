"""Random numbers: Philox against its published answers, and the layout of the draws against a scalar transcription."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from electra_fast import rng
from electra_fast.ops import native
from electra_fast.reference import philox

ANSWERS = json.loads(Path(__file__).with_name("philox_known_answers.json").read_text())["philox4x32"]
MASK = 0xFFFFFFFF


def scalar_philox(counter: list[int], key: list[int], rounds: int = 7) -> list[int]:
    """Philox4x32 in Python's integers, from the paper."""
    c, (k0, k1) = list(counter), key
    for _ in range(rounds):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k0, second & MASK, (first >> 32) ^ c[3] ^ k1, first & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


def random_calls(number: int) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(0)
    return [([draw.getrandbits(32) for _ in range(4)], [draw.getrandbits(32) for _ in range(2)]) for _ in range(number)]


def words(hexadecimal: list[str]) -> list[int]:
    return [int(word, 16) for word in hexadecimal]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a['rounds']}-{a['counter'][0]}")
def test_published_answers(answer: dict) -> None:
    counter, key, expected = words(answer["counter"]), words(answer["key"]), words(answer["words"])
    assert scalar_philox(counter, key, answer["rounds"]) == expected
    tensors = [torch.tensor(word) for word in (*counter, *key)]
    result = philox.philox4x32(tuple(tensors[:4]), tuple(tensors[4:]), answer["rounds"])
    assert [int(word) for word in result] == expected


def test_many_calls_at_once() -> None:
    calls = random_calls(200)
    columns = torch.tensor([counter + key for counter, key in calls]).unbind(1)
    result = torch.stack(philox.philox4x32(columns[:4], columns[4:]), 1)
    assert result.tolist() == [scalar_philox(counter, key) for counter, key in calls]


def test_native() -> None:
    if native.error is not None:
        pytest.skip(native.error)
    from electra_fast import _native

    for answer in ANSWERS:
        if answer["rounds"] == philox.ROUNDS:
            given = words(answer["counter"] + answer["key"])
            assert list(_native.philox(*given)) == words(answer["words"])
    for counter, key in random_calls(200):
        assert list(_native.philox(*counter, *key)) == scalar_philox(counter, key)


@pytest.mark.parametrize(("seed", "step", "site"), [(0, 0, 0), (-1, 2**40 + 3, 2**32 - 1), (2**63 - 5, 7, 11)])
def test_dropout_layout(seed: int, step: int, site: int) -> None:
    state = torch.tensor([seed, step])
    p, rows, columns = 0.3, 3, 37
    threshold = round(0.7 * 256)
    mask = philox.dropout_mask(rows, columns, p, state, site)
    key = [seed & MASK, (seed >> 32) & MASK]
    for row in range(rows):
        for column in range(columns):
            call = scalar_philox([column // 16, row, site, step & MASK], key)
            byte = (call[column % 16 // 4] >> (8 * (column % 4))) & 255
            assert mask[row, column].item() == (byte < threshold)


def test_attention_dropout_layout() -> None:
    state, heads, keys = rng.make(9, 4), 3, 21
    query = torch.tensor([[0, 5], [7, 70000]])
    mask = philox.attention_dropout_mask(query, heads, keys, 0.5, state, 2)
    assert mask.shape == (2, 2, heads, keys)
    for b, i, h, j in [(0, 0, 0, 0), (1, 0, 2, 20), (1, 1, 1, 16), (0, 1, 2, 15)]:
        call = scalar_philox([j // 16, int(query[b, i]) * heads + h, 2, 4], [9, 0])
        assert mask[b, i, h, j].item() == (((call[j % 16 // 4] >> (8 * (j % 4))) & 255) < 128)


def test_word_layout() -> None:
    state = rng.make(123, 5)
    index = torch.tensor([0, 3, 4, 1001])
    drawn = philox.word_at(index, torch.tensor([[1], [8]]), state, 6, first_block=2**31)
    for r, row in enumerate((1, 8)):
        for i, n in enumerate(index.tolist()):
            assert drawn[r, i].item() == scalar_philox([2**31 + n // 4, row, 6, 5], [123, 0])[n % 4]


@pytest.mark.parametrize(
    ("p", "threshold"),
    [(0.0, 256), (0.1, 230), (0.5, 128), (0.501953125, 128), (0.498046875, 128), (0.999999, 1), (0.001, 256)],
)
def test_threshold(p: float, threshold: int) -> None:
    assert philox.keep_threshold(p) == threshold
    assert philox.keep_scale(p) == 256 / threshold


def test_dropout_rate() -> None:
    """At most 4 standard deviations from the quantised probability, overall and for every byte of a call."""
    mask = philox.dropout_mask(4096, 256, 0.1, rng.make(1), 0).double()
    kept, deviation = 230 / 256, (230 / 256 * 26 / 256) ** 0.5
    assert abs(mask.mean() - kept) < 4 * deviation / mask.numel() ** 0.5
    by_byte = mask.view(-1, 16)
    assert ((by_byte.mean(0) - kept).abs() < 4 * deviation / by_byte.shape[0] ** 0.5).all()


def test_places_are_independent() -> None:
    """Neighbouring steps, sites, rows and seeds draw different masks, uncorrelated within 4 standard deviations."""

    def mask(seed: int = 0, step: int = 0, site: int = 0) -> torch.Tensor:
        return philox.dropout_mask(64, 256, 0.5, rng.make(seed, step), site).double() * 2 - 1

    base = mask()
    others = [mask(seed=1), mask(seed=2**32), mask(step=1), mask(site=1), base.roll(1, 0), base.roll(1, 1)]
    for other in others:
        assert abs((base * other).mean()) < 4 / base.numel() ** 0.5
