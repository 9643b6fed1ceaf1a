"""discriminator_loss against F.linear and F.binary_cross_entropy_with_logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference

OP = "discriminator_loss"
SHAPES = [(1, 1), (9, 40), (130, 256), (33, 67), (0, 8), (1000, 16)]


def make(shape: tuple[int, int], dtype: torch.dtype = torch.float32, masked: bool = True) -> dict[str, Tensor]:
    inputs = {
        "hidden": torch.randn(shape).to(dtype),
        "weight": torch.randn(1, shape[1]).to(dtype),
        "bias": torch.randn(1).to(dtype),
        "labels": torch.rand(shape[0]) < 0.15,
    }
    return {**inputs, "mask": torch.rand(shape[0]) < 0.8} if masked else inputs


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    logits = F.linear(hidden, weight.view(1, -1), bias).squeeze(-1)
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return (losses if mask is None else losses[mask]).sum()


def loss(**inputs: Tensor) -> Tensor:
    return ops.discriminator_loss(**inputs)[0]


def in_float32(**inputs: Tensor) -> Tensor:
    """Plain PyTorch in the inputs' dtype; the sum is handed over in the dtype of ours."""
    value = plain(**inputs)
    return value if value.dtype == torch.float64 else value.float()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_torch(backend, dtype, shape, masked, assert_matches_plain) -> None:
    assert_matches_plain(loss, in_float32, make(shape, dtype, masked))


def test_sum_of_many_rows_in_full_precision(backend) -> None:
    """bfloat16 rows are summed in float32: relative error 1e-5 against float64 on the same logits."""
    inputs = make((5000, 24), torch.bfloat16)
    value, logits = ops.discriminator_loss(**inputs)
    truth = F.binary_cross_entropy_with_logits(
        logits.double(), inputs["labels"].double(), weight=inputs["mask"].double(), reduction="sum"
    )
    assert value.item() == pytest.approx(truth.item(), rel=1e-5)


def test_logits(backend, dtype) -> None:
    inputs = make((33, 67), dtype)
    inputs["weight"].requires_grad_()
    _, logits = ops.discriminator_loss(**inputs)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not logits.requires_grad
    expected = inputs["hidden"].double() @ inputs["weight"].detach().double()[0] + inputs["bias"].double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_flat_weight(backend, gradients) -> None:
    inputs = make((9, 40))
    expected, expected_grads = gradients(loss, inputs)
    inputs["weight"] = inputs["weight"].flatten()
    value, grads = gradients(loss, inputs)
    assert torch.equal(value, expected)
    assert torch.equal(grads["weight"], expected_grads["weight"][0])


def test_float32_parameters_beside_bfloat16(backend, assert_matches_plain) -> None:
    inputs = make((50, 64), torch.bfloat16)
    mixed = {n: x.float() if n in ("weight", "bias") else x for n, x in inputs.items()}

    def widened(**given: Tensor) -> Tensor:
        return in_float32(**{**given, "hidden": given["hidden"].to(given["weight"].dtype)})

    assert_matches_plain(loss, widened, mixed)


def test_extreme_logits(backend, gradients) -> None:
    """No overflow: the loss of a wrong logit of 1000 is 1000, of a right one 0; gradients are finite."""
    inputs = {
        "hidden": torch.tensor([[1000.0], [-1000.0], [1000.0], [-1000.0]]),
        "weight": torch.ones(1),
        "bias": torch.zeros(1),
        "labels": torch.tensor([False, True, True, False]),
    }
    value, grads = gradients(loss, inputs)
    assert value == 2000
    assert all(torch.isfinite(grad).all() for grad in grads.values())


def test_masked_rows_get_no_gradient(backend, gradients) -> None:
    inputs = make((20, 16))
    _, grads = gradients(loss, inputs)
    assert (grads["hidden"][~inputs["mask"]] == 0).all()
    assert (grads["hidden"][inputs["mask"]] != 0).all()


def test_nothing_is_real(backend, gradients) -> None:
    inputs = make((6, 8))
    inputs["mask"] = torch.zeros(6, dtype=torch.bool)
    value, grads = gradients(loss, inputs)
    assert value == 0
    assert all((grad == 0).all() for grad in grads.values())


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_agree(native_op, dtype, masked) -> None:
    inputs = make((77, 40), dtype, masked)
    arguments = (*inputs.values(), *(() if masked else (None,)))
    for a, b in zip(native_op(*arguments), reference.discriminator_loss(*arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


def test_non_contiguous(backend, gradients) -> None:
    inputs = make((20, 24))
    strided = {n: torch.stack([x, x], -1)[..., 0] for n, x in inputs.items()}
    strided["hidden"] = inputs["hidden"].t().contiguous().t()
    value, grads = gradients(loss, strided)
    expected, expected_grads = gradients(loss, inputs)
    torch.testing.assert_close(value, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(backend, masked) -> None:
    inputs = make((7, 5), torch.float64, masked)
    leaves = [inputs[name].requires_grad_() for name in ("hidden", "weight", "bias")]
    rest = {n: x for n, x in inputs.items() if n in ("labels", "mask")}
    assert torch.autograd.gradcheck(lambda *given: ops.discriminator_loss(*given, **rest)[0], leaves)


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(native_op, native_backward, masked) -> None:
    inputs = make((9, 16), masked=masked)
    detached = (*inputs.values(), *(() if masked else (None,)))
    _, logits = native_op(*detached)
    torch.library.opcheck(
        native_backward, (torch.tensor(0.5), *detached, logits), test_utils=("test_schema", "test_faketensor")
    )
    for name in ("hidden", "weight", "bias"):
        inputs[name].requires_grad_()
    torch.library.opcheck(native_op, detached)


def test_compiles(backend, assert_compiles) -> None:
    assert_compiles(lambda **given: loss(**given) * 3, make((9, 16)))


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs = make((700, 64))

    def run() -> list[Tensor]:
        value, grads = gradients(loss, inputs)
        return [value, *ops.discriminator_loss(**inputs), *grads.values()]

    assert_deterministic(run)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": torch.ones(2, 3, 4)}, ValueError, r"discriminator_loss: hidden must have shape \[\*, \*\]"),
        (
            {"weight": torch.ones(2, 8)},
            ValueError,
            r"discriminator_loss: weight must have shape \[1, 8\], got \[2, 8\]",
        ),
        ({"weight": torch.ones(7)}, ValueError, r"discriminator_loss: weight must have shape \[8\], got \[7\]"),
        ({"weight": [1.0]}, TypeError, "discriminator_loss: weight must be a Tensor, got list"),
        ({"bias": torch.ones(8)}, ValueError, r"discriminator_loss: bias must have shape \[1\], got \[8\]"),
        ({"labels": torch.ones(4)}, TypeError, "discriminator_loss: labels must be bool, got float32"),
        ({"mask": torch.ones(3).bool()}, ValueError, r"discriminator_loss: mask must have shape \[4\], got \[3\]"),
    ],
)
def test_errors(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.discriminator_loss(**{**make((4, 8)), **change})
