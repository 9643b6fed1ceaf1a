"""The CUDA kernels of attention through their torch boundary: each class of kernels, forward and backward.

Which class runs depends on the bounds: up to 128 "short", up to 512 (head dimension 33 to 64) "resident", else
"streaming". The bounds are clipped to the number of rows, so padding rows choose the class of short sequences, too.
On Hopper the first two have kernels of their own for head dimensions 33 to 64: "hopper_short" and "hopper".
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from electra_fast import reference, rng
from electra_fast.reference.philox import attention_dropout_mask, keep_scale

ROWS = {  # the bound, and padding rows
    "short": (128, 3),
    "resident": (512, 130),
    "streaming": (10**6, 513),
    "hopper_short": (128, 3),
    "hopper": (512, 130),
}
DROPOUT = (0.2, (2**40 + 21, 4), 3)  # p, (seed, step), site

LENGTHS = [[5, 1, 0, 17, 33], [100, 128, 64]]
LONG = {
    "resident": [[200, 3], [513 - 130]],
    "streaming": [[129, 0, 70], [300]],
    "hopper_short": [[64, 65, 127, 1, 0, 63, 128, 96]],
    "hopper": [[200, 3], [512], [257, 130, 64, 0, 1, 448]],
}
CASES = [(name, lengths) for name in ROWS for lengths in LENGTHS + LONG.get(name, [])]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("attention")


def capability(name: str | None) -> int:
    """Of a device whose kernels a test means."""
    return 90 if name and name.startswith("hopper") else 80


@pytest.fixture(autouse=True)
def device(request, emulator) -> Iterator[None]:
    """The emulated device that the test's parameter `name` asks for."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    with emulator.configured(compute_capability=capability(parameters.get("name"))):
        yield


def boundaries(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


class Problem:
    """The arguments of one call, with gradients of the output to go back."""

    def __init__(
        self,
        name: str,
        lengths: list[int],
        heads: int = 2,
        width: int = 64,
        *,
        lengths_k: list[int] | None = None,
        dtype: torch.dtype = torch.bfloat16,
        scale: float | None = None,
        causal: bool = False,
        dropout: bool = False,
    ) -> None:
        bound, padding = ROWS[name]
        self.cu_q = boundaries(lengths)
        self.cu_k = self.cu_q if lengths_k is None else boundaries(lengths_k)
        rows, rows_k = int(self.cu_q[-1]) + padding, int(self.cu_k[-1]) + padding
        self.q, self.grad = (torch.randn(rows, heads, width).to(dtype) for _ in range(2))
        self.k, self.v = (torch.randn(rows_k, heads, width).to(dtype) for _ in range(2))
        self.scale = 1 / math.sqrt(width) if scale is None else scale
        self.causal = causal
        p, (seed, step), site = DROPOUT if dropout else (0.0, (0, 0), 0)
        self.dropout = (p, rng.make(seed, step) if dropout else None, site)
        self.bounds = (bound, bound)

    @property
    def rest(self) -> tuple:
        return self.cu_q, self.cu_k, *self.bounds, self.scale, self.causal, *self.dropout

    def run(self, ops) -> tuple[Tensor, ...]:
        """out, lse, dq, dk, dv."""
        out, lse = ops.attention(self.q, self.k, self.v, *self.rest)
        return out, lse, *ops.attention_backward(self.grad, self.q, self.k, self.v, out, lse, *self.rest)

    def plain(self, dtype: torch.dtype) -> list[Tensor]:
        """out, dq, dk, dv as PyTorch computes them in a dtype, one sequence after another."""
        q, k, v = (x.to(dtype).requires_grad_() for x in (self.q, self.k, self.v))
        out = torch.zeros_like(q)
        p, state, site = self.dropout
        for b in range(len(self.cu_q) - 1):
            rows, columns = (slice(int(cu[b]), int(cu[b + 1])) for cu in (self.cu_q, self.cu_k))
            nq, nk = rows.stop - rows.start, columns.stop - columns.start
            if nq == 0 or nk == 0:
                continue
            scores = torch.einsum("ihd,jhd->hij", q[rows], k[columns]) * self.scale
            if self.causal:
                scores = scores.masked_fill(~torch.ones(nq, nk, dtype=torch.bool).tril(nk - nq), -math.inf)
            weights = torch.softmax(scores, -1).nan_to_num(0.0)
            if p > 0:
                keep = attention_dropout_mask(torch.arange(rows.start, rows.stop), q.shape[1], nk, p, state, site)
                weights = weights * keep.transpose(0, 1) * keep_scale(p)
            part = torch.einsum("hij,jhd->ihd", weights, v[columns])
            out = out.index_copy(0, torch.arange(rows.start, rows.stop), part)
        grads = torch.autograd.grad(out, (q, k, v), self.grad.to(dtype), allow_unused=True)
        return [out.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip((q, k, v), grads, strict=True))]


def assert_accurate(name: str, actual: Tensor, truth: Tensor, plain: Tensor, factor: float) -> None:
    """The error is at most `factor` times plain PyTorch's in the same dtype, plus one rounding."""
    assert actual.shape == truth.shape
    assert actual.dtype == plain.dtype
    if truth.numel() == 0:
        return
    assert torch.isfinite(actual).all(), f"{name} is not finite"
    error, usual = ((x.double() - truth).abs().max().item() for x in (actual, plain))
    allowed = factor * usual + torch.finfo(plain.dtype).eps * max(truth.abs().max().item(), 1e-3)
    assert error <= allowed, f"{name}: error {error:.3g}, plain PyTorch has {usual:.3g}, allowed {allowed:.3g}"


def assert_right(ops, problem: Problem) -> None:
    out, lse, *grads = problem.run(ops)
    truth, usual = problem.plain(torch.float64), problem.plain(problem.q.dtype)
    assert_accurate("out", out, truth[0], usual[0], 2.0)
    for name, grad, right, plain in zip(("dq", "dk", "dv"), grads, truth[1:], usual[1:], strict=True):
        assert_accurate(name, grad, right, plain, 3.0)
    _, expected = reference.attention(*(x.double() for x in (problem.q, problem.k, problem.v)), *problem.rest)
    torch.testing.assert_close(lse, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("name", "lengths"), CASES, ids=str)
def test_matches_torch(ops, name, lengths, dropout) -> None:
    assert_right(ops, Problem(name, lengths, heads=1 if max(lengths) > 100 else 3, dropout=dropout))


@pytest.mark.parametrize("name", ROWS)
def test_float16(ops, name) -> None:
    assert_right(ops, Problem(name, [40, 81], dtype=torch.float16, dropout=True))
    assert_right(ops, Problem(name, [31], dtype=torch.float16))


@pytest.mark.parametrize("width", [7, 32, 40, 72, 96, 128])
@pytest.mark.parametrize("name", ["short", "streaming"])
def test_head_dimensions(ops, name, width) -> None:
    assert_right(ops, Problem(name, [70, 3, 33], heads=1, width=width, dropout=width % 3 != 0))


@pytest.mark.parametrize("name", ["resident", "hopper_short", "hopper"])
def test_head_dimensions_between(ops, name) -> None:
    assert_right(ops, Problem(name, [70, 3], heads=1, width=40, dropout=True))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_cross(ops, name, dropout) -> None:
    """Queries and keys of different lengths, either of them missing."""
    lengths = {"lengths": [3, 0, 5, 90, 66], "lengths_k": [70, 4, 0, 9, 128]}
    assert_right(ops, Problem(name, **lengths, heads=1, scale=0.3, dropout=dropout))


@pytest.mark.parametrize("name", ["resident", "hopper"])
def test_cross_at_length(ops, name) -> None:
    """Blocks that own keys and no queries, queries and no keys, or neither."""
    lengths = {"lengths": [300, 3, 0, 129, 20], "lengths_k": [70, 400, 9, 0, 260]}
    assert_right(ops, Problem(name, **lengths, heads=1, dropout=True))


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("dropout", [False, True])
def test_causal(ops, width, dropout) -> None:
    """Rows that see nothing (more queries than keys), and tiles that the mask cuts."""
    options = {"heads": 1, "width": width, "causal": True, "dropout": dropout}
    assert_right(ops, Problem("streaming", [70, 3, 129, 1], **options))
    assert_right(ops, Problem("streaming", [40, 5, 0, 70], lengths_k=[7, 140, 3, 150], **options))
    assert_right(ops, Problem("short", [20, 9], lengths_k=[12, 30], **options))


@pytest.mark.parametrize("scale", [-0.4, 0.0, 3.0])
@pytest.mark.parametrize("name", ROWS)
def test_any_scale(ops, name, scale) -> None:
    assert_right(ops, Problem(name, [60, 7], heads=1, scale=scale))


@pytest.mark.parametrize(("p", "seed", "step", "site"), [(0.1, 0, 0, 0), (0.6, -3, 2**32 + 1, 2**32 - 1)])
@pytest.mark.parametrize("name", ROWS)
def test_dropout_bits(ops, name, p, seed, step, site) -> None:
    """Values and gradients that form the identity show each probability: kept where the contract keeps, bit for bit."""
    lengths = [70, 0, 3, 128 if "short" in name else 150]
    problem = Problem(name, lengths, heads=2)
    problem.dropout = (p, rng.make(seed, step), site)
    problem.q.mul_(0.1)
    eye = torch.eye(64, dtype=problem.q.dtype).unsqueeze(1)
    for first in range(0, max(lengths), 64):
        problem.v.zero_()
        problem.grad.zero_()
        places = []
        for b, n in enumerate(lengths):
            window, start = slice(first, min(n, first + 64)), int(problem.cu_q[b])
            if window.start < window.stop:
                width = window.stop - window.start
                problem.v[start + window.start : start + window.stop] = eye[:width]
                problem.grad[start + window.start : start + window.stop] = eye[:width]
                places.append((slice(start, start + n), window, width))
        out, _, _, _, dv = problem.run(ops)
        for rows, window, width in places:
            n = rows.stop - rows.start
            keep = attention_dropout_mask(torch.arange(rows.start, rows.stop), 2, n, *problem.dropout)  # [n, heads, n]
            assert torch.equal(out[rows, :, :width] != 0, keep[:, :, window])
            assert torch.equal(dv[rows, :, :width] != 0, keep[window].permute(2, 1, 0))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_same_bits_in_any_order(ops, emulator, name, dropout) -> None:
    """Whichever thread and block runs first: no barrier is missing, and no sum is in the order of arrival."""
    lengths = {"hopper": [330, 17, 70]}.get(name, [90, 17] if "short" in name else [150, 40])
    problem = Problem(name, lengths, heads=1, dropout=dropout)
    emulator.same_under_every_schedule(lambda: problem.run(ops), random_runs=2, compute_capability=capability(name))


@pytest.mark.parametrize("name", ROWS)
def test_strides(ops, name) -> None:
    """Views of one projection, rows that are not aligned, and heads outermost: the bits of dense tensors."""
    problem = Problem(name, [50, 9])
    expected = problem.run(ops)
    rows, heads, width = problem.q.shape
    together = torch.stack([problem.q, problem.k, problem.v], 1)  # [T, 3, H, D]
    apart = torch.zeros(4, heads, rows, width, dtype=problem.q.dtype)
    apart[:] = torch.stack([problem.q, problem.k, problem.v, problem.grad]).transpose(1, 2)
    shifted = torch.zeros(rows, heads, width + 1, dtype=problem.q.dtype)
    shifted[..., 1:] = problem.q
    for q, k, v, grad in (
        (*together.unbind(1), problem.grad),
        apart.transpose(1, 2).unbind(0),
        (shifted[..., 1:], problem.k, problem.v, problem.grad[:, :1].expand(-1, heads, -1) * 0 + problem.grad),
        (problem.q.mT.contiguous().mT, problem.k, problem.v, problem.grad),
    ):
        problem.q, problem.k, problem.v, problem.grad = q, k, v, grad
        for i, (a, b) in enumerate(zip(problem.run(ops), expected, strict=True)):
            assert torch.equal(a, b), f"result {i} differs"
    flat = torch.zeros(problem.q.numel() + 1, dtype=problem.q.dtype)
    flat[1:] = problem.q.flatten()
    problem.q = flat[1:].view(rows, heads, width)  # contiguous, not at a multiple of 16 bytes
    assert torch.equal(problem.run(ops)[0], expected[0])


@pytest.mark.parametrize("name", ["hopper_short", "hopper"])
def test_strides_of_zero(ops, name) -> None:
    """All rows, or heads, the same memory: no tensor map describes that."""
    problem = Problem(name, [50, 9])
    problem.k = problem.k[:1].expand_as(problem.k)
    problem.grad = problem.grad[:, :1].expand_as(problem.grad)
    assert_right(ops, problem)


@pytest.mark.parametrize("name", ROWS)
def test_padding_rows_may_hold_anything(ops, name) -> None:
    """NaN behind the last sequence reaches nothing; results there are zero, and their log-sum-exp is that of no key."""
    problem = Problem(name, [20, 0, 31], dropout=True)
    for x in (problem.q, problem.k, problem.v, problem.grad):
        x[51:] = math.nan
    out, lse, *grads = problem.run(ops)
    assert (lse[:, 51:] == -math.inf).all()
    assert torch.isfinite(lse[:, :51]).all()
    for x in (out, *grads):
        assert torch.isfinite(x).all()
        assert (x[51:] == 0).all()


@pytest.mark.parametrize("name", ROWS)
def test_sequences_may_be_missing(ops, name) -> None:
    for lengths in ([], [0, 0]):
        out, lse, *grads = Problem(name, lengths).run(ops)
        assert (lse == -math.inf).all()
        assert all((x == 0).all() for x in (out, *grads))
    assert Problem(name, [20], heads=0).run(ops)[0].numel() == 0
    nothing = Problem(name, [])
    nothing.q = nothing.k = nothing.v = nothing.grad = nothing.q[:0]
    assert [x.numel() for x in nothing.run(ops)] == [0] * 5


@pytest.mark.parametrize("name", ROWS)
def test_one_key(ops, name) -> None:
    """Each output is the value, kept or dropped; nothing flows to q and k but rounding."""
    problem = Problem(name, [1] * 40, dropout=True)
    out, _, dq, dk, _ = problem.run(ops)
    keep = attention_dropout_mask(torch.arange(40), 2, 1, *problem.dropout) * keep_scale(problem.dropout[0])
    torch.testing.assert_close(out[:40], (problem.v[:40] * keep).to(out.dtype))
    assert max(dq.abs().max(), dk.abs().max()) < 32 * torch.finfo(out.dtype).eps


def test_many_sequences(ops) -> None:
    """More than a warp looks up at once."""
    lengths = [i % 4 * 9 for i in range(70)]
    assert_right(ops, Problem("streaming", lengths, heads=1))


@pytest.mark.parametrize("name", ROWS)
def test_far_scores(ops, name) -> None:
    """Scores in the thousands: weights are 0 and 1, and nothing is NaN."""
    problem = Problem(name, [60, 5], scale=100.0)
    out, lse, *grads = problem.run(ops)
    assert all(torch.isfinite(x).all() for x in (out, lse[:, :65], *grads))
    torch.testing.assert_close(out.double(), problem.plain(torch.float64)[0], rtol=0.01, atol=0.02)


@pytest.mark.parametrize("name", ROWS)
def test_nan_shows(ops, name) -> None:
    problem = Problem(name, [40])
    problem.q[7] = math.nan
    out, _, dq, dk, dv = problem.run(ops)
    assert out[7].isnan().all()
    assert torch.isfinite(out[:7]).all()
    assert all(x.isnan().any() for x in (dq, dk, dv))


def test_less_shared_memory(ops, emulator) -> None:
    """A device whose blocks have 99 KiB: what does not stay resident streams, and what cannot run says so."""
    with emulator.configured(compute_capability=86):
        assert_right(ops, Problem("resident", [150, 20], heads=1, dropout=True))
        wide = Problem("streaming", [20], heads=1, width=128)
        if not emulator.real:
            with pytest.raises(RuntimeError, match="attention_backward: head dimension 128 needs more shared memory"):
                wide.run(ops)


@pytest.mark.parametrize("name", ROWS)
def test_bound_below_a_length(ops, emulator, name) -> None:
    if emulator.real:
        pytest.skip("the trap ends the process's use of the GPU")
    problem = Problem(name, [20, 60])
    problem.bounds = (59, 60)
    with pytest.raises(RuntimeError, match="__trap"):
        problem.run(ops)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.ones(6, 16).half()}, r"attention: q must have shape \[tokens, heads, dim\], got \[6, 16\]"),
        ({"k": torch.ones(6, 2, 16).half()}, r"attention: k must have shape \[tokens, 2, 8\] like q, got \[6, 2, 16\]"),
        ({"k": torch.ones(6, 2, 8).bfloat16()}, "attention: k must have the dtype of q"),
        ({"v": torch.ones(5, 2, 8).half()}, r"attention: v must have the shape of k, \[6, 2, 8\], got \[5, 2, 8\]"),
        (dict.fromkeys("qkv", torch.ones(6, 2, 8)), "attention: q must be bfloat16 or float16 on CUDA"),
        (dict.fromkeys("qkv", torch.ones(6, 2, 129).half()), "the head dimension must be 1 to 128 on CUDA, got 129"),
        (dict.fromkeys("qkv", torch.ones(6, 2, 0).half()), "the head dimension must be 1 to 128 on CUDA, got 0"),
        ({"cu_q": torch.tensor([0, 6])}, r"attention: cu_seqlens_q must be int32 of shape \[B\+1\]"),
        ({"cu_k": torch.tensor([0, 3, 6], dtype=torch.int32)}, "cu_seqlens_k must have as many entries"),
        ({"bounds": (6, -1)}, "max_seqlen_q and max_seqlen_k must be at least 0, got 6, -1"),
        ({"dropout": (1.0, None, 0)}, r"attention: dropout_p must be in \[0, 1\), got 1"),
        ({"dropout": (0.5, None, 0)}, "attention: dropout_p > 0 needs rng"),
    ],
)
def test_errors(ops, change, message) -> None:
    problem = Problem("short", [6], width=8, dtype=torch.float16)
    problem.q, problem.k, problem.v = (torch.ones(6, 2, 8).half() for _ in range(3))
    for name, value in change.items():
        setattr(problem, name, value)
    with pytest.raises(RuntimeError, match=message):
        ops.attention(problem.q, problem.k, problem.v, *problem.rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.ones(5, 2, 8).half()}, "attention_backward: grad must have the shape of q"),
        ({"out": torch.ones(6, 2, 8)}, "attention_backward: out must have the dtype of q"),
        ({"lse": torch.ones(2, 5)}, r"attention_backward: lse must be the second output .*, float32 \[2, 6\]"),
    ],
)
def test_backward_errors(ops, change, message) -> None:
    x = torch.ones(6, 2, 8).half()
    arguments = {"grad": x, "q": x, "k": x, "v": x, "out": x, "lse": torch.ones(2, 6)} | change
    cu = boundaries([6])
    with pytest.raises(RuntimeError, match=message):
        ops.attention_backward(*arguments.values(), cu, cu, 6, 6, 1.0, False, 0.0, None, 0)
