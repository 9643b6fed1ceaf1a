"""The CUDA kernels of gelu in the emulator, through their torch boundary, against torch's erf form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

SHAPES = [(1, 1), (7, 40), (37, 256), (5, 3072), (2, 3, 5, 67), (0, 8), (3, 0), (13,), (600, 8)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("gelu")


def inputs(shape, dtype, bias_dtype) -> tuple:
    x = (3 * torch.randn(shape)).to(dtype)
    return torch.randn(shape).to(dtype), x, None if bias_dtype is None else torch.randn(shape[-1]).to(bias_dtype)


def truth(grad, x, bias) -> list[torch.Tensor]:
    leaves = [t.double().requires_grad_() for t in (x, bias) if t is not None]
    y = F.gelu(sum(leaves))
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.double())]


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """One rounding to the result's dtype beside the arithmetic in float32."""
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=1.01 * torch.finfo(dtype).eps + 2e-6, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_torch(ops, shape, dtype) -> None:
    for bias_dtype in (None, dtype, torch.float32):
        grad, x, bias = inputs(shape, dtype, bias_dtype)
        expected = truth(grad, x, bias)
        assert_close(ops.gelu(x, bias), expected[0], dtype)
        dx, dbias = ops.gelu_backward(grad, x, bias)
        assert_close(dx, expected[1], dtype)
        if bias is None:
            assert dbias.shape == (0,)
        else:
            assert_close(dbias, expected[2], bias.dtype)


def test_many_row_blocks(ops, emulator) -> None:
    """More rows than one pass of the blocks covers, and the same bits whatever the order in which threads run."""
    args = inputs((70, 264), torch.bfloat16, torch.float32)
    emulator.same_under_every_schedule(lambda: ops.gelu_backward(*args), random_runs=2)
    expected = truth(*args)
    assert_close(ops.gelu_backward(*args)[1], expected[2], torch.float32)


def test_tails(ops) -> None:
    x = torch.tensor([-1e30, -50.0, 0.0, -0.0, 50.0, 1e30])
    assert ops.gelu(x, None).tolist() == [0.0, 0.0, 0.0, 0.0, 50.0, pytest.approx(1e30)]
    assert ops.gelu_backward(torch.ones(6), x, None)[0].tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    tail = torch.linspace(-5, -1, 400)
    assert (ops.gelu(tail, None) / F.gelu(tail.double()) - 1).abs().max() < 1e-4
    assert ops.gelu(torch.tensor([float("nan")]), None).isnan().all()


def test_unaligned_and_strided(ops) -> None:
    """Rows that vectors of 16 bytes do not fit."""
    wide = torch.randn(9, 65).bfloat16()
    for x in (wide.view(-1)[1:513].view(8, 64), wide[:, :64], wide.t()):
        grad = torch.randn_like(x)
        for a, b in zip(
            ops.gelu_backward(grad, x, None),
            ops.gelu_backward(grad, x.clone(memory_format=torch.contiguous_format), None),
            strict=True,
        ):
            assert torch.equal(a, b)
        assert torch.equal(ops.gelu(x, None), ops.gelu(x.clone(memory_format=torch.contiguous_format), None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (torch.ones(3).double(), None), "gelu: x must be float32, bfloat16 or float16 on CUDA"),
        (lambda: (torch.tensor(1.0), None), "gelu: x must have at least one dimension"),
        (lambda: (torch.ones(2, 3), torch.ones(2)), r"gelu: bias must have shape \[3\], got \[2\]"),
        (
            lambda: (torch.ones(3).half(), torch.ones(3).bfloat16()),
            "gelu: bias must be float32 or of the dtype of the activations",
        ),
    ],
)
def test_errors(ops, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.gelu(*arguments())
