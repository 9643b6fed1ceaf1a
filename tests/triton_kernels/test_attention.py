"""The Triton kernels of attention against the reference, and their dropout bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.reference.philox import attention_dropout_mask, keep_scale

# (query lengths, key lengths or None for the same, padding rows of both, heads, head dimension)
CASES = [
    ([5, 1, 0, 17, 70], None, 3, 1, 64),
    ([33, 3], None, 1, 1, 96),
    ([66], None, 2, 1, 128),
    ([3, 0, 5, 40], [7, 4, 0, 9], 2, 2, 32),
    ([0, 0], None, 6, 1, 64),
    ([1, 1], [66, 33], 0, 1, 16),
    ([12], [5], 1, 3, 40),
    ([1, 3, 1], None, 2, 2, 7),
]


def boundaries(lengths: list[int], device: str) -> Tensor:
    return torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)


def make(case: tuple, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    queries, keys, padding, heads, width = case
    keys = queries if keys is None else keys
    tokens = {"q": sum(queries) + padding, "k": sum(keys) + padding, "v": sum(keys) + padding}
    inputs = {name: torch.randn(n, heads, width).to(device, dtype) for name, n in tokens.items()}
    return inputs | {"cu_seqlens_q": boundaries(queries, device), "cu_seqlens_k": boundaries(keys, device)}


def options(device: str, p: float = 0.2, seed: int = 21, step: int = 4, site: int = 3) -> dict:
    return {"dropout_p": p, "rng": rng.make(seed, step, device), "site": site}


def outputs(inputs: dict[str, Tensor], grad: Tensor | None = None, **given) -> list[Tensor]:
    """The output and the gradients of q, k, v."""
    leaves = inputs | {name: inputs[name].detach().requires_grad_() for name in "qkv"}
    out = ops.attention(**leaves, **given)
    grad = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape) if grad is None else grad
    return [out.detach(), *torch.autograd.grad(out, [leaves[name] for name in "qkv"], grad.to(out.dtype))]


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_reference(case, causal, dtype, device, assert_matches_reference) -> None:
    assert_matches_reference(ops.attention, make(case, dtype, device) | {"causal": causal})


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_dropout_matches_reference(case, dtype, device, assert_matches_reference) -> None:
    assert_matches_reference(ops.attention, make(case, dtype, device) | options(device))


@pytest.mark.parametrize(("p", "seed", "step", "site", "lengths"), [
    (0.1, 0, 0, 0, [5, 50, 0, 3]), (0.5, -3, 2**32 + 1, 2**32 - 1, [7]), (0.9, 2**45 + 1, 9, 1, [1, 2, 35]),
])  # fmt: skip
def test_dropout_bits(p, seed, step, site, lengths, device, triton_backend) -> None:
    """Values that form the identity show each probability, gradients of the values each again as backward draws it:
    kept where the contract keeps, bit for bit."""
    heads, width = 2, 64
    inputs = make((lengths, None, 2, heads, width), torch.float32, device)
    given = options(device, p, seed, step, site)
    rows = [slice(*pair) for pair in zip(inputs["cu_seqlens_q"].tolist(), inputs["cu_seqlens_q"].tolist()[1:])]  # noqa: B905
    identity = torch.zeros_like(inputs["v"])
    for row in rows:
        n = row.stop - row.start
        identity[row] = torch.eye(n, width, device=device).unsqueeze(1)
    inputs["v"] = identity
    out, _, _, dv = outputs(inputs, identity, **given)
    undropped, _, _, dv_undropped = outputs(inputs, identity)
    for row in rows:
        n = row.stop - row.start
        index = torch.arange(row.start, row.stop, device=device)
        keep = attention_dropout_mask(index, heads, n, p, given["rng"], site)  # [query, head, key]
        assert torch.equal(out[row, :, :n] != 0, keep)
        torch.testing.assert_close(out[row, :, :n], undropped[row, :, :n] * keep * keep_scale(p))
        transposed = keep.permute(2, 1, 0)
        assert torch.equal(dv[row, :, :n] != 0, transposed)
        torch.testing.assert_close(dv[row, :, :n], dv_undropped[row, :, :n] * transposed * keep_scale(p))


@pytest.mark.parametrize("causal", [False, True])
def test_lse(causal, dtype, device) -> None:
    from electra_fast.triton import attention

    for case in (CASES[0], CASES[3]):
        inputs = make(case, dtype, device)
        rest = (inputs["q"].shape[0], inputs["k"].shape[0], 0.2, causal, 0.0, None, 0)
        _, lse = attention.forward(*inputs.values(), *rest)
        _, expected = reference.attention(*inputs.values(), *rest)
        torch.testing.assert_close(lse, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -0.3, 8.0])
def test_scales(scale, device, assert_matches_reference) -> None:
    """Scores that are all the same, whose order is reversed, and that would overflow an exponential."""
    inputs = make(([20], [67], 1, 1, 16), torch.float32, device)
    assert_matches_reference(ops.attention, inputs | {"scale": scale, "causal": True})


def test_padding_rows_may_hold_anything(device, triton_backend) -> None:
    """NaN behind the last sequence reaches neither outputs nor gradients."""
    inputs = make(([6, 65], None, 5, 1, 32), torch.float32, device)
    expected = outputs(inputs)
    for name in "qkv":
        inputs[name][71:] = torch.nan
    for actual, wanted in zip(outputs(inputs), expected, strict=True):
        assert torch.equal(actual, wanted)
        assert (actual[71:] == 0).all()


def test_strides(device, triton_backend) -> None:
    """Slices of a fused projection, head-major storage, and a strided last dimension; any gradient."""
    cu = boundaries([6, 8], device)
    fused, major = torch.randn(15, 3, 2, 16, device=device), torch.randn(3, 2, 15, 16, device=device)
    sparse = torch.randn(3, 15, 2, 32, device=device)
    permuted, constant = torch.randn(16, 2, 15, device=device).permute(2, 1, 0), torch.ones(1, device=device)
    for views, grad in (
        (fused.unbind(1), permuted),
        (major.transpose(1, 2).unbind(0), constant.expand(15, 2, 16)),
        (sparse[..., ::2].unbind(0), permuted),
    ):
        inputs = dict(zip("qkv", views, strict=True))
        actual = outputs(inputs, grad, cu_seqlens_q=cu, **options(device))
        contiguous = {name: x.contiguous() for name, x in inputs.items()}
        expected = outputs(contiguous, grad.contiguous(), cu_seqlens_q=cu, **options(device))
        for a, b in zip(actual, expected, strict=True):
            assert torch.equal(a, b)


def test_more_sequences_than_one_step_of_the_search(device, triton_backend) -> None:
    lengths = [0] * 260 + [3] + [0] * 5 + [2, 0]
    inputs = make((lengths, None, 1, 1, 16), torch.float32, device)
    with ops.use_backend("reference"):
        expected = ops.attention(*(inputs[name] for name in "qkv"), boundaries([3, 2], device))
    torch.testing.assert_close(ops.attention(**inputs), expected)


@pytest.mark.parametrize(("blocks", "columns"), [((16, 16), (2, 4)), ((16, 64), (4, 2)), ((64, 16), (1, 1))], ids=str)
def test_configurations_change_nothing_but_rounding(blocks, columns, device, triton_backend, monkeypatch) -> None:
    from electra_fast.triton import attention
    from electra_fast.triton.configurations import Configuration

    inputs = make(([70, 5], None, 1, 1, 16), torch.float32, device)
    given = options(device, 0.5) | {"causal": True}
    expected = outputs(inputs, **given)
    monkeypatch.setattr(attention, "_configuration", lambda kernel, q, dim: Configuration("a test", *blocks))
    monkeypatch.setattr(attention, "columns_of_thread", lambda device: columns)
    for actual, wanted in zip(outputs(inputs, **given), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=2e-6, atol=2e-6)


def test_deterministic(device, triton_backend) -> None:
    inputs = make(([40, 1, 35], None, 0, 1, 16), torch.float16, device)
    first, second = (outputs(inputs, **options(device)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_packing_does_not_change_a_sequence(device, triton_backend) -> None:
    inputs = make(([30, 20, 40], None, 0, 1, 32), torch.float32, device)
    packed = ops.attention(**inputs)
    alone = ops.attention(*(inputs[name][30:50] for name in "qkv"), boundaries([20], device))
    assert torch.equal(packed[30:50], alone)


def test_nothing_to_attend(device, triton_backend) -> None:
    inputs = make(([3], [0], 0, 2, 8), torch.float32, device)
    for x in outputs(inputs):
        assert (x == 0).all()
    assert ops.attention(*(inputs[name][:0] for name in "qkv"), boundaries([], device)).shape == (0, 2, 8)


def test_heads_too_wide(device, triton_backend) -> None:
    inputs = make(([3], None, 0, 1, 136), torch.float32, device)
    with pytest.raises(ValueError, match=r"attention: q must have a head dimension of at most 128 .* got 136"):
        ops.attention(**inputs)
