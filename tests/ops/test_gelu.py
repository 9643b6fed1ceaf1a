"""gelu against torch's erf form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops

OP = "gelu"
SHAPES = [(1, 1), (7, 40), (33, 1024), (2, 3, 5, 67), (0, 8), (3, 0), (13,)]


def plain(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias)


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, bias: bool = True) -> dict[str, Tensor]:
    x = (3 * torch.randn(shape)).to(dtype)
    return {"x": x, "bias": torch.randn(shape[-1]).to(dtype)} if bias else {"x": x}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_torch(backend, dtype, shape, bias, assert_matches_plain) -> None:
    assert_matches_plain(ops.gelu, plain, make(shape, dtype, bias))


def test_float32_bias_beside_bfloat16(backend, assert_matches_plain) -> None:
    inputs = make((17, 48), torch.bfloat16)
    inputs["bias"] = inputs["bias"].float()

    def in_bfloat16(x: Tensor, bias: Tensor) -> Tensor:
        return plain(x, bias).to(x.dtype) if x.dtype != torch.float64 else plain(x, bias)

    assert_matches_plain(ops.gelu, in_bfloat16, inputs)


def test_tails(backend) -> None:
    """Far from zero gelu is 0 or x, and never NaN; between, the relative error stays small in the left tail too."""
    x = torch.tensor([-1e30, -50.0, 0.0, -0.0, 50.0, 1e30])
    assert ops.gelu(x).tolist() == [0.0, 0.0, 0.0, 0.0, 50.0, pytest.approx(1e30)]
    tail = torch.linspace(-5, -1, 400)
    assert (ops.gelu(tail) / F.gelu(tail.double()) - 1).abs().max() < 1e-4


def test_non_contiguous(backend, gradients) -> None:
    wide, bias = torch.randn(9, 2, 96), torch.randn(48)
    for x in (wide[:, 1, ::2], wide[:, 0, :48], wide[0].t().expand(48, 96, 2)[:, :48, 0]):
        out, grads = gradients(ops.gelu, {"x": x, "bias": bias})
        expected, expected_grads = gradients(ops.gelu, {"x": x.contiguous(), "bias": bias})
        assert torch.equal(out, expected)
        assert torch.equal(grads["x"], expected_grads["x"])
        torch.testing.assert_close(grads["bias"], expected_grads["bias"])


def test_non_contiguous_gradient(backend) -> None:
    x = torch.randn(6, 10, requires_grad=True)
    grad = torch.randn(10, 6).t()
    (expected,) = torch.autograd.grad(plain(x), x, grad)
    (actual,) = torch.autograd.grad(ops.gelu(x), x, grad)
    torch.testing.assert_close(actual, expected)


def test_gradcheck(backend) -> None:
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.gelu, (x, bias))


@pytest.mark.parametrize("bias", [False, True])
def test_opcheck(native_op, native_backward, bias) -> None:
    x = torch.randn(5, 24, requires_grad=True)
    b = torch.randn(24, requires_grad=True) if bias else None
    torch.library.opcheck(native_op, (x, b))
    torch.library.opcheck(
        native_backward, (torch.randn(5, 24), x.detach(), b), test_utils=("test_schema", "test_faketensor")
    )


def test_compiles(backend, assert_compiles) -> None:
    assert_compiles(lambda x, bias: ops.gelu(x * 2, bias) + 1, make((6, 16)))


def test_compiles_with_inductor(native_op, assert_compiles) -> None:
    assert_compiles(lambda x, bias: ops.gelu(x * 2, bias) + 1, make((6, 16)), "inductor")


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs = make((130, 200))

    def run() -> list[Tensor]:
        out, grads = gradients(ops.gelu, inputs)
        return [out, *grads.values()]

    assert_deterministic(run)


def test_autocast_keeps_the_dtype_of_x(backend) -> None:
    inputs = make((4, 8))
    expected = ops.gelu(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.gelu(**inputs), expected)
        assert ops.gelu(inputs["x"].bfloat16(), inputs["bias"]).dtype == torch.bfloat16


def test_no_gradient_is_saved_for_constants(backend) -> None:
    x = torch.randn(3, 4)
    bias = torch.randn(4, requires_grad=True)
    ops.gelu(x, bias).sum().backward()
    assert x.grad is None
    assert bias.grad is not None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, "gelu: x must be a Tensor, got list"),
        ((torch.arange(3),), TypeError, "gelu: x must be float32 or bfloat16 or float16 or float64, got int64"),
        ((torch.ones(2, 3), torch.ones(2)), ValueError, r"gelu: bias must have shape \[3\], got \[2\]"),
        ((torch.ones(3), torch.ones(3).double()), TypeError, "gelu: bias must be float32, got float64"),
        ((torch.ones(3), torch.ones(3, device="meta")), ValueError, "gelu: bias must be on cpu .*, got meta"),
    ],
)
def test_errors(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.gelu(*arguments)
