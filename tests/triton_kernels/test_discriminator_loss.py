"""The Triton kernels of discriminator_loss against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops

SHAPES = [(1, 3), (9, 40), (6, 256), (5, 768), (3, 1000), (0, 8)]


def make(shape, dtype, device, parameter=None, masked=True) -> dict[str, Tensor]:
    rows, width = shape
    parameter = parameter or dtype
    tensors = {
        "hidden": torch.randn(shape).to(device, dtype),
        "weight": (torch.randn(1, width) / width**0.5).to(device, parameter),
        "bias": torch.randn(1).to(device, parameter),
        "labels": (torch.rand(rows) < 0.3).to(device),
    }
    return tensors | ({"mask": (torch.rand(rows) < 0.8).to(device)} if masked else {})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, masked, dtype, device, assert_matches_reference) -> None:
    assert_matches_reference(ops.discriminator_loss, make(shape, dtype, device, masked=masked))


def test_float32_parameters_beside_float16(device, assert_matches_reference) -> None:
    assert_matches_reference(ops.discriminator_loss, make((7, 48), torch.float16, device, torch.float32))


def test_logits(device, triton_backend) -> None:
    given = make((9, 40), torch.float32, device)
    given["weight"] = given["weight"][0]
    _, logits = ops.discriminator_loss(**given)
    expected = given["hidden"].double() @ given["weight"].double() + given["bias"].double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-6)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_confident_logits(device, triton_backend) -> None:
    """Neither an infinity nor the loss of a tail: softplus(-l) of a token known to be real or replaced."""
    logits = torch.tensor([-200.0, -30.0, -12.0, 12.0, 30.0, 200.0], device=device)
    for label in (False, True):
        hidden = logits[:, None].clone().requires_grad_()
        for i, value in enumerate(logits.tolist()):
            labels = torch.full((1,), label, device=device)
            one, zero = torch.ones(1, 1, device=device), torch.zeros(1, device=device)
            loss, _ = ops.discriminator_loss(hidden[i : i + 1], one, zero, labels)
            expected = torch.nn.functional.softplus(torch.tensor(-value if label else value).double())
            torch.testing.assert_close(loss.double().cpu(), expected, rtol=1e-5, atol=1e-37)
            (slope,) = torch.autograd.grad(loss, hidden)
            exact = torch.sigmoid(torch.tensor(value).double()) - float(label)
            torch.testing.assert_close(slope[i, 0].double().cpu(), exact, rtol=1e-5, atol=1e-7)


def test_rows_outside_the_mask_may_hold_anything(device, triton_backend) -> None:
    given = make((6, 20), torch.float32, device)
    given["mask"] = torch.tensor([True, False, True, True, False, False], device=device)
    clean = {n: given[n].clone().requires_grad_() for n in ("hidden", "weight", "bias")}
    dirty = {n: given[n].clone() for n in clean}
    dirty["hidden"][~given["mask"]] = float("nan")
    dirty = {n: t.requires_grad_() for n, t in dirty.items()}
    rest = {n: given[n] for n in ("labels", "mask")}
    (loss, _), (other, _) = ops.discriminator_loss(**clean, **rest), ops.discriminator_loss(**dirty, **rest)
    assert torch.equal(loss, other)
    gradients = [torch.autograd.grad(x, list(i.values())) for x, i in ((loss, clean), (other, dirty))]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    assert not gradients[1][0][~given["mask"]].any()


def test_more_rows_than_programs(device, monkeypatch, assert_matches_reference) -> None:
    from electra_fast.triton import partial_sums

    monkeypatch.setattr(partial_sums, "MOST_PARTIALS", 3)
    assert_matches_reference(ops.discriminator_loss, make((45, 40), torch.float32, device))
