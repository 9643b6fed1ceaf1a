"""The Triton kernel of adam against the reference, several steps long."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops

SHAPES = [(1,), (3, 5), (13, 67), (0,), (), (2049,)]
DECAYS = [0.01, 0.0, 0.1, 0.01, 0.0, 0.01]


def make(dtype: torch.dtype, average: torch.dtype, device: str) -> list[list[Tensor]]:
    """params, grads, exp_avg, exp_avg_sq."""
    kinds = ((torch.randn, dtype), (torch.randn, dtype), (torch.randn, average), (torch.rand, average))
    return [[draw(shape).to(device, kind) for shape in SHAPES] for draw, kind in kinds]


def steps(backend: str, state: list[list[Tensor]], **options: float) -> list[list[Tensor]]:
    state = [[x.clone() for x in tensors] for tensors in state]
    device = state[0][0].device
    with ops.use_backend(backend):
        for rate in (0.1, 0.05, 0.01):
            ops.adam_(
                *state, weight_decay=DECAYS, learning_rate=torch.tensor(rate, device=device),
                grad_scale=torch.tensor(0.7, dtype=torch.float64, device=device), **options,
            )  # fmt: skip
    return state


@pytest.mark.parametrize("options", [{}, {"beta1": 0.5, "beta2": 0.9, "eps": 0.1}], ids=str)
@pytest.mark.parametrize("average", [None, torch.float32], ids=["same", "float32 averages"])
def test_matches_reference(options, average, dtype, device, assert_accurate) -> None:
    state = make(dtype, average or dtype, device)
    exact = [[x.double() for x in tensors] for tensors in state]
    truth, plain = steps("reference", exact, **options), steps("reference", state, **options)
    actual = steps("triton", state, **options)
    for name, *lists in zip(("params", "grads", "exp_avg", "exp_avg_sq"), actual, truth, plain, strict=True):
        for i, tensors in enumerate(zip(*lists, strict=True)):
            assert_accurate(f"{name}[{i}]", *tensors)


def test_a_factor_that_is_nan_updates_nothing(device, triton_backend) -> None:
    state = make(torch.float32, torch.float32, device)
    before = [[x.clone() for x in tensors] for tensors in state]
    factor = torch.tensor(float("nan"), device=device)
    ops.adam_(*state, weight_decay=DECAYS, learning_rate=torch.ones((), device=device), grad_scale=factor)
    assert all(
        torch.equal(a, b) for ours, theirs in zip(state, before, strict=True) for a, b in zip(ours, theirs, strict=True)
    )


def test_strided_gradients_and_versions(device, triton_backend) -> None:
    """Autograd learns that the parameters have changed."""
    p, g = torch.randn(4, 6, device=device), torch.randn(6, 4, device=device).t()
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    before, version = p.clone(), p._version
    one = torch.ones((), device=device)
    ops.adam_([p], [g], [m], [v], weight_decay=[0.0], learning_rate=one, grad_scale=one)
    torch.testing.assert_close(m, 0.1 * g)
    torch.testing.assert_close(p, before - m / (v.sqrt() + 1e-6))
    assert p._version > version


def test_nothing_to_update(device) -> None:
    from electra_fast.triton import adam

    one = torch.ones((), device=device)
    adam.forward([], [], [], [], [], one, one, 0.9, 0.999, 1e-6)


def test_opcheck(device) -> None:
    p, one = torch.randn(8, device=device), torch.ones((), device=device)
    arguments = ([p], [p.clone()], [p.clone()], [p.abs()], [0.1], one, one, 0.9, 0.999, 1e-6)
    operation = torch.ops.electra_fast_triton.adam_.default
    torch.library.opcheck(operation, arguments, test_utils=("test_schema", "test_faketensor"))
