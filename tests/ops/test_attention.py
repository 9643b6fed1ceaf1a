"""attention against torch's scaled_dot_product_attention, one sequence at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.reference.philox import attention_dropout_mask, keep_scale

OP = "attention"
OPTIONS = {"dropout_p": 0.2, "rng": rng.make(21, 4), "site": 3}

# (lengths, padding rows, heads, head dimension)
SELF = [
    ([5, 1, 0, 17, 33], 3, 2, 64),
    ([16, 16], 0, 1, 32),
    ([70, 3], 1, 3, 96),
    ([65, 128, 1], 0, 2, 128),
    ([1, 3, 1], 2, 4, 64),
    ([21], 0, 2, 40),
    ([9, 30], 4, 1, 7),
    ([0, 0], 6, 2, 64),
    ([259], 5, 1, 64),
]
# (query lengths, key lengths, padding rows of both, heads, head dimension)
CROSS = [([3, 0, 5, 40], [7, 4, 0, 9], 2, 2, 64), ([1, 1], [130, 33], 0, 2, 32), ([12], [5], 1, 3, 40)]


def boundaries(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def make(tokens: int, tokens_k: int, heads: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        name: torch.randn(n, heads, width).to(dtype) for name, n in (("q", tokens), ("k", tokens_k), ("v", tokens_k))
    }


def each(cu_q: Tensor, cu_k: Tensor):
    """Slices of each sequence's queries and keys."""
    q, k = cu_q.tolist(), cu_k.tolist()
    return [(slice(*a), slice(*b)) for a, b in zip(zip(q, q[1:]), zip(k, k[1:]))]  # noqa: B905, RUF007


def plain(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, causal: bool = False, scale=None) -> Tensor:
    """scaled_dot_product_attention of each sequence; rows that see nothing are zero."""
    out = [torch.zeros_like(q[:0])]
    for rows, columns in each(cu_q, cu_k):
        heads = [x.transpose(0, 1) for x in (q[rows], k[columns], v[columns])]
        nq, nk = heads[0].shape[1], heads[1].shape[1]
        visible = torch.ones(nq, nk, dtype=torch.bool).tril(nk - nq) if causal else torch.ones(nq, nk, dtype=torch.bool)
        seen = visible.any(1)
        some = F.scaled_dot_product_attention(heads[0][:, seen], *heads[1:], attn_mask=visible[seen], scale=scale)
        full = q.new_zeros(heads[0].shape).index_copy(1, seen.nonzero().flatten(), some)
        out.append(full.transpose(0, 1))
    out = torch.cat(out)
    return torch.cat([out, q.new_zeros((q.shape[0] - out.shape[0], *q.shape[1:]))])


def plain_dropout(q: Tensor, k: Tensor, v: Tensor, cu: Tensor) -> Tensor:
    """Softmax written out, with the contract's mask."""
    out = torch.zeros_like(q)
    for rows, _ in each(cu, cu):
        index = torch.arange(rows.start, rows.stop)
        p = torch.softmax(torch.einsum("ihd,jhd->hij", q[rows], k[rows]) / math.sqrt(q.shape[2]), -1)
        keep = attention_dropout_mask(
            index, q.shape[1], len(index), OPTIONS["dropout_p"], OPTIONS["rng"], OPTIONS["site"]
        )
        p = p * keep.transpose(0, 1) * keep_scale(OPTIONS["dropout_p"])
        out = out.index_copy(0, index, torch.einsum("hij,jhd->ihd", p, v[rows]))
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", SELF, ids=str)
def test_matches_torch(backend, dtype, case, causal, assert_matches_plain) -> None:
    lengths, padding, heads, width = case
    cu, tokens = boundaries(lengths), sum(lengths) + padding
    assert_matches_plain(
        lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu, causal=causal),
        lambda **qkv: plain(**qkv, cu_q=cu, cu_k=cu, causal=causal),
        make(tokens, tokens, heads, width, dtype),
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", CROSS, ids=str)
def test_cross_matches_torch(backend, dtype, case, causal, assert_matches_plain) -> None:
    lengths_q, lengths_k, padding, heads, width = case
    cu_q, cu_k = boundaries(lengths_q), boundaries(lengths_k)
    assert_matches_plain(
        lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, causal=causal, scale=0.3),
        lambda **qkv: plain(**qkv, cu_q=cu_q, cu_k=cu_k, causal=causal, scale=0.3),
        make(sum(lengths_q) + padding, sum(lengths_k) + padding, heads, width, dtype),
    )


@pytest.mark.parametrize("case", SELF, ids=str)
def test_dropout_matches_torch(backend, dtype, case, assert_matches_plain) -> None:
    lengths, padding, heads, width = case
    cu, tokens = boundaries(lengths), sum(lengths) + padding
    assert_matches_plain(
        lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu, **OPTIONS),
        lambda **qkv: plain_dropout(**qkv, cu=cu),
        make(tokens, tokens, heads, width, dtype),
    )


@pytest.mark.parametrize(("p", "seed", "step", "site", "lengths"), [
    (0.1, 0, 0, 0, [5, 64, 0, 33]), (0.5, -3, 2**32 + 1, 2**32 - 1, [100, 7]), (0.9, 2**45 + 1, 9, 1, [1, 2, 128]),
])  # fmt: skip
def test_dropout_bits(backend, p, seed, step, site, lengths) -> None:
    """Values that form the identity show each probability: kept where the contract keeps, bit for bit."""
    heads, width, state = 3, 128, rng.make(seed, step)
    cu, tokens = boundaries(lengths), sum(lengths) + 2
    inputs = make(tokens, tokens, heads, width)
    for rows, _ in each(cu, cu):
        n = rows.stop - rows.start
        inputs["v"][rows] = torch.eye(n, width).unsqueeze(1)
    options = {"dropout_p": p, "rng": state, "site": site}
    out = ops.attention(**inputs, cu_seqlens_q=cu, **options)
    undropped = ops.attention(**inputs, cu_seqlens_q=cu)
    for rows, _ in each(cu, cu):
        n = rows.stop - rows.start
        keep = attention_dropout_mask(torch.arange(rows.start, rows.stop), heads, n, p, state, site)
        assert torch.equal(out[rows, :, :n] != 0, keep)
        torch.testing.assert_close(out[rows, :, :n], undropped[rows, :, :n] * keep * keep_scale(p))


def test_fresh_seed_follows_the_generator(backend) -> None:
    inputs, cu = make(20, 20, 2, 32), boundaries([20])
    torch.manual_seed(5)
    first, second = (ops.attention(**inputs, cu_seqlens_q=cu, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(ops.attention(**inputs, cu_seqlens_q=cu, dropout_p=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("case", SELF, ids=str)
def test_lse_agrees(native_op, dtype, case) -> None:
    lengths, padding, heads, width = case
    cu, tokens = boundaries(lengths), sum(lengths) + padding
    arguments = (*make(tokens, tokens, heads, width, dtype).values(), cu, cu, tokens, tokens, 0.2, False, 0.0, None, 0)
    (_, lse), (_, expected) = native_op(*arguments), reference.attention(*arguments)
    torch.testing.assert_close(lse, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_single_keys(backend, dtype, dropout_p, gradients) -> None:
    """One key a sequence: the output is its value, kept or dropped, and nothing flows to q and k but rounding."""
    inputs, state = make(40, 40, 2, 64, dtype), rng.make(2)
    options = {"dropout_p": dropout_p, "rng": state}
    out, grads = gradients(lambda **qkv: ops.attention(**qkv, cu_seqlens_q=boundaries([1] * 40), **options), inputs)
    keep = attention_dropout_mask(torch.arange(40), 2, 1, dropout_p, state, 0) * keep_scale(dropout_p)
    torch.testing.assert_close(out, (inputs["v"] * keep).to(dtype))
    for name in "qk":
        assert grads[name].abs().max() < 32 * torch.finfo(dtype).eps


def test_padding_rows_may_hold_anything(backend, gradients) -> None:
    """NaN behind the last sequence reaches neither outputs nor gradients."""
    cu = boundaries([6, 5])
    inputs = make(16, 16, 2, 32)
    expected, expected_grads = gradients(lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu), inputs)
    for x in inputs.values():
        x[11:] = torch.nan
    out, grads = gradients(lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu), inputs)
    assert torch.equal(out, expected)
    assert (out[11:] == 0).all()
    for name, grad in grads.items():
        assert torch.equal(grad, expected_grads[name])
        assert (grad[11:] == 0).all()


def test_large_scores_do_not_overflow(backend) -> None:
    inputs, cu = make(40, 40, 2, 64), boundaries([40])
    inputs["q"] *= 1e4
    out = ops.attention(**inputs, cu_seqlens_q=cu)
    truth = plain(*(x.double() for x in inputs.values()), cu_q=cu, cu_k=cu)
    torch.testing.assert_close(out.double(), truth, rtol=1e-2, atol=1e-2)


def test_non_contiguous(backend, gradients) -> None:
    """Slices of a fused projection, head-major storage, and a strided last dimension."""
    cu = boundaries([11, 8])
    fused, major, sparse = torch.randn(20, 3, 2, 32), torch.randn(3, 2, 20, 32), torch.randn(3, 20, 2, 64)
    for views in (fused.unbind(1), major.transpose(1, 2).unbind(0), sparse[..., ::2].unbind(0)):
        inputs = dict(zip("qkv", views, strict=True))

        def run(**qkv: Tensor) -> Tensor:
            return ops.attention(**qkv, cu_seqlens_q=cu, **OPTIONS)

        out, grads = gradients(run, inputs)
        expected, expected_grads = gradients(run, {n: x.contiguous() for n, x in inputs.items()})
        assert torch.equal(out, expected)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected_grads[name])


def test_gradient_with_any_strides(backend) -> None:
    inputs, cu = {n: x.requires_grad_() for n, x in make(9, 9, 2, 16).items()}, boundaries([4, 5])
    out = ops.attention(**inputs, cu_seqlens_q=cu)
    for grad in (torch.randn(16, 2, 9).permute(2, 1, 0), torch.randn(1, 2, 16).expand(9, 2, 16)):
        actual = torch.autograd.grad(out, list(inputs.values()), grad, retain_graph=True)
        expected = torch.autograd.grad(out, list(inputs.values()), grad.contiguous(), retain_graph=True)
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("causal", "dropout"), [(False, False), (True, True)])
def test_gradcheck(backend, causal, dropout) -> None:
    inputs = [x.requires_grad_() for x in make(9, 9, 2, 5, torch.float64).values()]
    cu, options = boundaries([4, 0, 3]), OPTIONS if dropout else {}
    assert torch.autograd.gradcheck(lambda q, k, v: ops.attention(q, k, v, cu, causal=causal, **options), inputs)


@pytest.mark.parametrize("dropout", [False, True])
def test_opcheck(native_op, native_backward, native_dtype, dropout) -> None:
    q, k, v = (x.requires_grad_() for x in make(9, 9, 2, 16, native_dtype).values())
    cu = boundaries([4, 0, 3])
    rest = (cu, cu, 9, 9, 0.25, False, *((0.1, OPTIONS["rng"], 3) if dropout else (0.0, None, 0)))
    torch.library.opcheck(native_op, (q, k, v, *rest))
    with torch.no_grad():
        out, lse = native_op(q, k, v, *rest)
    saved = (torch.randn_like(out), q.detach(), k.detach(), v.detach(), out, lse)
    torch.library.opcheck(native_backward, (*saved, *rest), test_utils=("test_schema", "test_faketensor"))


def test_compiles(backend, assert_compiles) -> None:
    cu = boundaries([4, 0, 7])
    assert_compiles(
        lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu, max_seqlen_q=8, max_seqlen_k=8, **OPTIONS),
        make(12, 12, 2, 16),
    )


def test_compiles_once_for_all_lengths(backend) -> None:
    torch._dynamo.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(
        lambda q, k, v, cu: ops.attention(q, k, v, cu), fullgraph=True, dynamic=True, backend=count
    )
    for lengths in ([5, 4], [7, 13], [2, 30]):
        inputs, cu = make(sum(lengths), sum(lengths), 2, 16), boundaries(lengths)
        torch.testing.assert_close(compiled(*inputs.values(), cu), ops.attention(**inputs, cu_seqlens_q=cu))
    assert len(graphs) == 1


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs, cu = make(150, 150, 2, 32), boundaries([70, 1, 79])

    def run() -> list[Tensor]:
        out, grads = gradients(lambda **qkv: ops.attention(**qkv, cu_seqlens_q=cu, **OPTIONS), inputs)
        return [out, *grads.values()]

    assert_deterministic(run)


def test_packing_does_not_change_a_sequence(backend) -> None:
    """A sequence gives the same alone and among others."""
    inputs = make(90, 90, 2, 64)
    packed = ops.attention(**inputs, cu_seqlens_q=boundaries([30, 20, 40]))
    alone = ops.attention(*(x[30:50] for x in inputs.values()), cu_seqlens_q=boundaries([20]))
    torch.testing.assert_close(packed[30:50], alone, rtol=1e-6, atol=1e-6)


def test_autocast(backend) -> None:
    """q, k, v are cast, whatever mixture they come in; gradients come back in the inputs' dtypes; float64 stays."""
    inputs, cu = make(10, 10, 2, 32), boundaries([10])
    low = {n: x.bfloat16() for n, x in inputs.items()}
    expected = ops.attention(**low, cu_seqlens_q=cu)
    q = inputs["q"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.attention(**inputs, cu_seqlens_q=cu), expected)
        out = ops.attention(q, low["k"], inputs["v"], cu)
        assert torch.equal(out, expected)
        double = {n: x.detach().double() for n, x in inputs.items()}
        assert ops.attention(**double, cu_seqlens_q=cu).dtype == torch.float64
    out.sum().backward()
    assert q.grad.dtype == torch.float32


def test_nothing_to_attend_is_connected_to_autograd(backend) -> None:
    inputs = {n: x.requires_grad_() for n, x in make(3, 0, 2, 8).items()}
    out = ops.attention(**inputs, cu_seqlens_q=boundaries([3]), cu_seqlens_k=boundaries([0]))
    assert (out == 0).all()
    out.sum().backward()
    assert (inputs["q"].grad == 0).all()
    assert ops.attention(*(x[:0] for x in inputs.values()), boundaries([])).shape == (0, 2, 8)


@pytest.mark.parametrize("masked", ["none", "right", "left", "scattered", "all"])
def test_padded_is_packed(backend, masked, gradients) -> None:
    batch, length, heads, width = 3, 11, 2, 32
    inputs = {n: torch.randn(batch, length, heads, width) for n in "qkv"}
    place = torch.arange(length)
    mask = {
        "none": None,
        "right": place < torch.tensor([[4], [11], [0]]),
        "left": place >= torch.tensor([[4], [0], [10]]),
        "scattered": torch.rand(batch, length) < 0.6,
        "all": torch.zeros(batch, length, dtype=torch.bool),
    }[masked]
    real = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask
    cu = boundaries(real.sum(1).tolist())

    def packed(**qkv: Tensor) -> Tensor:
        out = ops.attention(*(x[real] for x in qkv.values()), cu, **OPTIONS, causal=True, scale=0.2)
        return torch.zeros_like(qkv["q"]).index_put((real,), out)

    expected, expected_grads = gradients(packed, inputs)
    out, grads = gradients(
        lambda **qkv: ops.attention_padded(**qkv, mask=mask, **OPTIONS, causal=True, scale=0.2), inputs
    )
    torch.testing.assert_close(out, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


def test_heads_of_any_width(backend, assert_matches_plain) -> None:
    cu = boundaries([5, 0, 9])
    assert_matches_plain(
        lambda q, k, v: ops.attention(q, k, v, cu), lambda q, k, v: plain(q, k, v, cu, cu), make(14, 14, 2, 320)
    )


def test_boundaries_of_any_stride(backend) -> None:
    inputs, cu = make(14, 14, 2, 8), boundaries([5, 0, 9])
    spread = torch.stack([cu, cu + 1], dim=1)[:, 0]
    assert not spread.is_contiguous()
    assert torch.equal(ops.attention(**inputs, cu_seqlens_q=spread), ops.attention(**inputs, cu_seqlens_q=cu))


@pytest.mark.parametrize(
    ("cu", "message"),
    [
        ([1, 3, 5], "cu_seqlens_q"),
        ([0, 4, 3], "cu_seqlens_q"),
        ([0, 4, 7], "cu_seqlens_q"),
        ([0, -1, 5], "cu_seqlens_q"),
    ],
)
@pytest.mark.reads_values
def test_bad_boundaries(backend, cu, message) -> None:
    with pytest.raises(ValueError, match=f"attention.*{message}"):
        ops.attention(**make(6, 6, 2, 8), cu_seqlens_q=torch.tensor(cu, dtype=torch.int32))


def test_bound_below_the_longest_sequence(backend) -> None:
    with pytest.raises(ValueError, match=r"attention: max_seqlen_q must be"):
        ops.attention(**make(6, 6, 2, 8), cu_seqlens_q=boundaries([6]), max_seqlen_q=5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.ones(6, 16)}, ValueError, r"attention: q must have shape \[\*, \*, \*\], got \[6, 16\]"),
        ({"k": torch.ones(6, 2, 7)}, ValueError, r"attention: k must have shape \[\*, 2, 8\], got \[6, 2, 7\]"),
        ({"v": torch.ones(5, 2, 8)}, ValueError, r"attention: v must have shape \[6, 2, 8\], got \[5, 2, 8\]"),
        ({"v": torch.ones(6, 2, 8).bfloat16()}, TypeError, "attention: v must be float32, got bfloat16"),
        ({"cu_seqlens_q": torch.tensor([0, 6])}, TypeError, "attention: cu_seqlens_q must be int32, got int64"),
        ({"cu_seqlens_q": boundaries([])[:0]}, ValueError, r"attention: cu_seqlens_q must have shape .* got an empty"),
        ({"cu_seqlens_k": boundaries([3, 3])}, ValueError, r"attention: cu_seqlens_k must have shape \[2\], got \[3\]"),
        ({"max_seqlen_k": -1}, ValueError, "attention: max_seqlen_q and max_seqlen_k must be at least 0"),
        ({"dropout_p": 1.5}, ValueError, "attention: dropout_p must be in"),
    ],
)
def test_errors(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.attention(**{**make(6, 6, 2, 8), "cu_seqlens_q": boundaries([6]), **change})


@pytest.mark.parametrize("name", ["q", "k", "v", "cu_seqlens_q"])
def test_every_tensor_is_checked(name) -> None:
    """They are checked together, and one by one only where that fails: nothing may slip through."""
    inputs = {**make(6, 6, 2, 8), "cu_seqlens_q": boundaries([6])}
    x = inputs[name]
    with pytest.raises(TypeError, match=f"attention: {name} must be a Tensor, got list"):
        ops.attention(**{**inputs, name: x.tolist()})
    with pytest.raises(TypeError, match=r"attention: .* must be .*, got "):
        ops.attention(**{**inputs, name: x.bool()})
    with pytest.raises(ValueError, match=r"attention: .* must have shape"):
        ops.attention(**{**inputs, name: x[None]})
    with pytest.raises(ValueError, match=r"attention: .* must be on"):
        ops.attention(**{**inputs, name: x.to("meta")})


def test_padded_errors() -> None:
    x = torch.ones(2, 3, 1, 8)
    with pytest.raises(TypeError, match="attention_padded: mask must be bool, got int64"):
        ops.attention_padded(x, x, x, torch.ones(2, 3).long())
    with pytest.raises(ValueError, match=r"attention_padded: k must have shape \[2, 3, 1, 8\]"):
        ops.attention_padded(x, x[:, :2], x)
