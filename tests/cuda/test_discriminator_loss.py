"""The CUDA kernels of discriminator_loss in the emulator, through their torch boundary, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

# Rows that a warp holds, several at once, of a length known to the compiler or not; and of any other length.
SHAPES = [(37, 256), (3, 768), (19, 1024), (50, 40), (9, 7), (4, 1100), (1, 8), (0, 16), (5, 0)]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("discriminator_loss")


def make(shape: tuple[int, int], dtype: torch.dtype, parameters: torch.dtype | None = None, mask: bool = True) -> list:
    """hidden, weight, bias, labels, mask."""
    rows, columns = shape
    parameters = parameters or dtype
    hidden = torch.randn(shape).to(dtype)
    weight, bias = (3 * torch.randn(columns) / max(columns, 1) ** 0.5).to(parameters), torch.randn(1).to(parameters)
    return [hidden, weight, bias, torch.rand(rows) < 0.3, torch.rand(rows) < 0.8 if mask else None]


def truth(inputs: list, grad: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    leaves = [t.double().requires_grad_() for t in inputs[:3]]
    loss, logits = reference.discriminator_loss(*leaves, *inputs[3:])
    return loss.detach(), logits, list(torch.autograd.grad(loss, leaves, grad.double()))


def assert_close(name: str, actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """One rounding to the result's dtype beside the arithmetic in float32."""
    assert actual.dtype == dtype, name
    assert actual.shape == expected.shape, name
    tolerance = {"rtol": 1.01 * torch.finfo(dtype).eps + 1e-5, "atol": 2e-5}
    torch.testing.assert_close(actual.double(), expected.double(), **tolerance, msg=lambda m: f"{name}: {m}")


def check(ops, inputs: list) -> None:
    grad = torch.tensor(0.7)
    loss, logits, expected = truth(inputs, grad)
    actual_loss, actual_logits = ops.discriminator_loss(*inputs)
    assert_close("loss", actual_loss, loss, torch.float32)
    assert_close("logits", actual_logits, logits, torch.float32)
    gradients = ops.discriminator_loss_backward(grad, *inputs, actual_logits)
    for name, actual, wanted, like in zip(("hidden", "weight", "bias"), gradients, expected, inputs, strict=False):
        assert_close(f"d{name}", actual, wanted, like.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(ops, shape, dtype) -> None:
    check(ops, make(shape, dtype))
    check(ops, make(shape, dtype, mask=False))


@pytest.mark.parametrize("columns", [256, 24, 9])
def test_parameters(ops, columns) -> None:
    """float32 parameters beside 16-bit rows; weight as a matrix of one row."""
    inputs = make((21, columns), torch.bfloat16, torch.float32)
    check(ops, inputs)
    inputs[1] = inputs[1][None]
    loss, logits = ops.discriminator_loss(*inputs)
    dweight = ops.discriminator_loss_backward(torch.ones(()), *inputs, logits)[1]
    assert dweight.shape == (1, columns)
    inputs[1] = inputs[1][0]
    assert torch.equal(loss, ops.discriminator_loss(*inputs)[0])
    assert torch.equal(dweight[0], ops.discriminator_loss_backward(torch.ones(()), *inputs, logits)[1])


def test_extreme_logits(ops) -> None:
    """No overflow, and a small loss keeps its relative accuracy."""
    hidden = torch.tensor([-1e4, -100.0, -15.0, 0.0, 15.0, 100.0, 1e4])[:, None].repeat(2, 8) / 8
    labels = torch.arange(14) < 7
    inputs = [hidden, torch.ones(8), torch.zeros(1), labels, None]
    for row in range(14):
        only = torch.arange(14) == row
        loss, logits = ops.discriminator_loss(*inputs[:4], only)
        logit = hidden[row].double().sum() * (-1 if labels[row] else 1)
        expected = torch.logaddexp(logit, torch.zeros_like(logit))
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-30)
        dhidden = ops.discriminator_loss_backward(torch.ones(()), *inputs[:4], only, logits)[0]
        assert dhidden[only].isfinite().all()
        assert (dhidden[~only] == 0).all()


def test_rows_that_do_not_count(ops) -> None:
    """What a masked row holds reaches neither the loss nor another row's gradient."""
    inputs = make((30, 256), torch.float32)
    loss, _ = ops.discriminator_loss(*inputs)
    inputs[0][~inputs[4]] *= 1e30
    assert torch.equal(ops.discriminator_loss(*inputs)[0], loss)
    nothing = torch.zeros(30, dtype=torch.bool)
    loss, logits = ops.discriminator_loss(*inputs[:4], nothing)
    assert loss == 0
    for gradient in ops.discriminator_loss_backward(torch.ones(()), *inputs[:4], nothing, logits):
        assert (gradient == 0).all()


@pytest.mark.parametrize("shape", [(700, 256), (150, 768), (90, 12), (300, 5)], ids=str)
def test_same_bits_in_any_order(ops, emulator, shape) -> None:
    inputs = make(shape, torch.bfloat16)

    def run() -> list[Tensor]:
        loss, logits = ops.discriminator_loss(*inputs)
        return [loss[None], logits, *ops.discriminator_loss_backward(torch.ones(()), *inputs, logits)]

    emulator.same_under_every_schedule(run)
    check(ops, inputs)


def test_any_strides_and_alignment(ops) -> None:
    inputs = make((6, 64), torch.float32)
    loss, logits = ops.discriminator_loss(*inputs)
    expected = [loss, logits, *ops.discriminator_loss_backward(torch.ones(()), *inputs, logits)]
    shifted = torch.cat((torch.zeros(1), inputs[0].flatten()))[1:].view(6, 64)
    for hidden, weight in ((shifted, inputs[1]), (inputs[0].t().contiguous().t(), inputs[1].repeat_interleave(2)[::2])):
        changed = [hidden, weight, *inputs[2:]]
        loss, logits = ops.discriminator_loss(*changed)
        actual = [loss, logits, *ops.discriminator_loss_backward(torch.ones(()), *changed, logits)]
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.ones(3, 8).double()}, "hidden must be float32, bfloat16 or float16 on CUDA"),
        ({0: torch.ones(3)}, r"hidden must have shape \[T, K\], got \[3\]"),
        ({1: torch.ones(2, 4)}, r"weight must have shape \[8\] or \[1, 8\], got \[2, 4\]"),
        ({1: torch.ones(8).half()}, "weight must be float32 or of the dtype of the activations"),
        ({2: torch.ones(2)}, "bias must have one element, got 2"),
        ({3: torch.ones(3)}, r"labels must be a bool tensor of shape \[3\], got \[3\]"),
        ({4: torch.ones(4) > 0}, r"mask must be a bool tensor of shape \[3\], got \[4\]"),
    ],
)
def test_errors(ops, change, message) -> None:
    arguments = [torch.ones(3, 8), torch.ones(8), torch.ones(1), torch.ones(3) > 0, None]
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(RuntimeError, match=f"discriminator_loss: {message}"):
        ops.discriminator_loss(*arguments)


@pytest.mark.parametrize(
    ("grad", "logits", "message"),
    [
        (torch.ones(2), torch.ones(3), "grad must be float32 with one element, got 2"),
        (torch.ones(1), torch.ones(4), "logits must be those that discriminator_loss returned"),
    ],
)
def test_backward_errors(ops, grad, logits, message) -> None:
    inputs = [torch.ones(3, 8), torch.ones(8), torch.ones(1), torch.ones(3) > 0, None]
    with pytest.raises(RuntimeError, match=f"discriminator_loss_backward: {message}"):
        ops.discriminator_loss_backward(grad, *inputs, logits)
