"""The Triton kernels of embedding against the reference, and the sums by id behind its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.reference.philox import dropout_mask

TABLES = (23, 12, 2)  # rows of word, position and token type


def make(shape, width, dtype, device, parameter=None) -> dict[str, Tensor]:
    parameter = parameter or dtype
    words, positions, types = TABLES
    ids = {
        "input_ids": torch.randint(words, shape),
        "position_ids": torch.randint(positions, shape),
        "token_type_ids": torch.randint(types, shape),
    }
    tables = {
        name: torch.randn(rows, width).to(dtype)
        for name, rows in zip(("word", "position", "token_type"), TABLES, strict=True)
    }
    vectors = {"weight": 1 + 0.1 * torch.randn(width), "bias": torch.randn(width)}
    return {n: t.to(device) for n, t in (ids | tables | {n: v.to(parameter) for n, v in vectors.items()}).items()}


@pytest.mark.parametrize(("shape", "width"), [((1,), 5), ((2, 7), 40), ((9,), 256), ((3,), 768), ((0,), 16)], ids=str)
def test_matches_reference(shape, width, dtype, device, assert_matches_reference) -> None:
    assert_matches_reference(ops.embedding, make(shape, width, dtype, device))


def test_dropout_and_padding_match_reference(device, assert_matches_reference) -> None:
    options = {"dropout_p": 0.1, "rng": rng.make(11, 3, device), "site": 5, "padding_idx": 4}
    given = make((30,), 40, torch.float32, device)
    given["input_ids"][::3] = 4
    assert_matches_reference(lambda **tensors: ops.embedding(**tensors, **options), given)


def test_padding_row_gets_no_gradient(device, triton_backend) -> None:
    given = make((30,), 16, torch.float32, device)
    given["input_ids"][:10] = 0
    given["word"].requires_grad_()
    (dword,) = torch.autograd.grad(ops.embedding(**given, padding_idx=0).square().sum(), given["word"])
    assert not dword[0].any()
    used = torch.zeros(TABLES[0], dtype=torch.bool, device=device)
    used[given["input_ids"]] = True
    used[0] = False
    assert torch.equal(dword.any(1), used)


def test_dtype_of_the_output(device, triton_backend) -> None:
    given = make((6,), 32, torch.float32, device)
    exact = ops.embedding(**given)
    half = ops.embedding(**given, out_dtype=torch.float16)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, exact.half())
    mixed = {n: t.half() if n in ("word", "position", "token_type") else t for n, t in given.items()}
    assert ops.embedding(**mixed).dtype == torch.float16


@pytest.mark.parametrize(("p", "seed", "site", "width"), [(0.5, -7, 2**32 - 1, 100), (0.1, 3, 0, 768)])
def test_dropout_bits(p, seed, site, width, device, triton_backend) -> None:
    given = make((5,), width, torch.float32, device)
    given["bias"] += 20.0  # so that no output is zero by itself
    state = rng.make(seed, 2**33 + 6, device)
    y = ops.embedding(**given, dropout_p=p, rng=state, site=site)
    assert torch.equal(y != 0, dropout_mask(5, width, p, state, site))


@pytest.mark.parametrize("chunk", [4, 8, 64])
@pytest.mark.parametrize("runs", ["one", "pairs", "long and short", "none"])
def test_sums_by_id(chunk, runs, device, monkeypatch) -> None:
    """Every way in which runs of equal ids may lie across chunks, over several levels."""
    from electra_fast.triton import sums_by_id

    monkeypatch.setattr(sums_by_id, "CHUNK", chunk)
    tokens = 19
    ids = {
        "one": torch.zeros(tokens),
        "pairs": torch.arange(tokens) // 2,
        "long and short": torch.tensor([0] * 9 + [1, 2, 3] + [4] * 4 + [5, 6, 6]),
        "none": torch.arange(tokens),
    }[runs]
    word_ids = ids.int()[torch.randperm(tokens)]
    position_ids, type_ids = torch.randint(11, (tokens,)).int(), torch.randint(2, (tokens,)).int()
    tables = [torch.zeros(rows, 24, device=device) for rows in (20, 11, 2)]
    rows = torch.randint(-8, 8, (tokens, 24)).float()  # sums of integers are exact in any order
    sums_by_id.sum_by_id(
        rows.to(device), torch.cat([word_ids, position_ids + 20, type_ids + 31]).to(device), tuple(tables), -1
    )
    for table, index in zip(tables, (word_ids, position_ids, type_ids), strict=True):
        expected = torch.zeros(table.shape).index_add(0, index, rows)
        assert torch.equal(table.cpu(), expected)


def test_deterministic_and_compiles(device, triton_backend) -> None:
    given = make((70,), 40, torch.float32, device)
    leaves = [t.requires_grad_() for t in given.values() if t.is_floating_point()]
    options = {"dropout_p": 0.1, "rng": rng.make(1, 2, device), "padding_idx": 3}
    grad = torch.randn(70, 40, device=device)

    def gradients(function) -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(**given, **options), leaves, grad)

    expected = gradients(ops.embedding)
    torch._dynamo.reset()
    for function in (ops.embedding, torch.compile(ops.embedding, fullgraph=True, backend="aot_eager")):
        for a, b in zip(gradients(function), expected, strict=True):
            assert torch.equal(a, b)
