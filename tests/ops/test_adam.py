"""adam_ against the update written out, several steps long."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import ops

OP = "adam"
SHAPES = [(1,), (3, 5), (130, 67), (0,), (), (4097,)]
DECAYS = [0.01, 0.0, 0.1, 0.01, 0.0, 0.01]


class State:
    """Parameters, gradients and averages of some shapes."""

    def __init__(self, dtype: torch.dtype = torch.float32, average: torch.dtype | None = None) -> None:
        average = average or dtype
        self.params = [torch.randn(shape).to(dtype) for shape in SHAPES]
        self.grads = [torch.randn(shape).to(dtype) for shape in SHAPES]
        self.exp_avg = [torch.randn(shape).to(average) for shape in SHAPES]
        self.exp_avg_sq = [torch.rand(shape).to(average) for shape in SHAPES]

    def lists(self) -> tuple[list[Tensor], ...]:
        return self.params, self.grads, self.exp_avg, self.exp_avg_sq

    def clone(self, dtype: torch.dtype | None = None) -> State:
        other = object.__new__(State)
        for name, tensors in vars(self).items():
            setattr(other, name, [x.clone().to(dtype or x.dtype) for x in tensors])
        return other


def step(state: State, rate: float = 0.1, scale: float = 0.7, **options: float) -> None:
    ops.adam_(
        *state.lists(), weight_decay=DECAYS, learning_rate=torch.tensor(rate), grad_scale=torch.tensor(scale), **options
    )


def written_out(state: State, rate: float = 0.1, scale: float = 0.7, beta1=0.9, beta2=0.999, eps=1e-6) -> None:
    for i, decay in enumerate(DECAYS):
        g = state.grads[i] * scale
        state.exp_avg[i] = beta1 * state.exp_avg[i] + (1 - beta1) * g
        state.exp_avg_sq[i] = beta2 * state.exp_avg_sq[i] + (1 - beta2) * g * g
        update = state.exp_avg[i] / (state.exp_avg_sq[i].sqrt() + eps) + decay * state.params[i]
        state.params[i] = state.params[i] - rate * update


def assert_close(actual: State, expected: State, tolerance: float) -> None:
    for name, tensors in vars(expected).items():
        for a, b in zip(getattr(actual, name), tensors, strict=True):
            torch.testing.assert_close(
                a.double(), b.double(), rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("options", [{}, {"beta1": 0.5, "beta2": 0.9, "eps": 0.1}])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-7)], ids=["float32", "float64"]
)
def test_matches_the_formula(backend, dtype, tolerance, options) -> None:
    """Over 5 steps; in float64 the rate and the factor are still float32 numbers."""
    state = State(dtype)
    expected = state.clone(torch.float64)
    for _ in range(5):
        step(state, **options)
        written_out(expected, torch.tensor(0.1).item(), torch.tensor(0.7).item(), **options)
    assert_close(state, expected, tolerance)


def test_first_step_is_not_corrected_for_bias(backend) -> None:
    """From zero averages the step is lr · 0.1 g / (√0.001 |g|) = 3.16 lr · sign(g), not lr · sign(g)."""
    state = State()
    for averages in (state.exp_avg, state.exp_avg_sq):
        for x in averages:
            x.zero_()
    before = state.params[2].clone()
    ops.adam_(
        [state.params[2]], [state.grads[2].sign()], [state.exp_avg[2]], [state.exp_avg_sq[2]],
        weight_decay=[0.0], learning_rate=torch.tensor(0.01), grad_scale=torch.tensor(1.0),
    )  # fmt: skip
    torch.testing.assert_close(
        (before - state.params[2]).abs(), torch.full_like(before, 0.01 * 0.1 / (0.001**0.5 + 1e-6))
    )


def test_zero_rate_still_updates_the_averages(backend) -> None:
    state = State()
    before = state.clone()
    step(state, rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(state.params, before.params, strict=True))
    assert not torch.equal(state.exp_avg[2], before.exp_avg[2])


def test_a_factor_that_is_nan_updates_nothing(backend) -> None:
    state = State()
    state.grads[1].fill_(float("nan"))
    before = state.clone()
    step(state, scale=float("nan"))
    for name, tensors in vars(before).items():
        if name != "grads":
            assert all(torch.equal(a, b) for a, b in zip(getattr(state, name), tensors, strict=True)), name


@pytest.mark.parametrize("average", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:adam runs in plain PyTorch")
def test_bfloat16_parameters(average) -> None:
    """One step in the reference (native takes no bfloat16), each stored number rounded once."""
    state = State(torch.bfloat16, average)
    expected = state.clone(torch.float64)
    step(state)
    written_out(expected, torch.tensor(0.1).item(), torch.tensor(0.7).item())
    assert_close(state, expected, 2**-7)
    assert state.exp_avg[0].dtype == average


def test_parameters_that_require_grad(backend) -> None:
    state = State()
    expected = state.clone()
    step(expected)
    leaves = [p.requires_grad_() for p in state.params]
    versions = [p._version for p in leaves]
    step(state)
    assert all(torch.equal(a, b) for a, b in zip(leaves, expected.params, strict=True))
    assert all(p.is_leaf and p.requires_grad for p in leaves)
    assert all(p._version > v for p, v in zip(leaves, versions, strict=True)), "autograd must see the change"


def test_gradients_of_any_strides(backend) -> None:
    state = State()
    expected = state.clone()
    state.grads[2] = state.grads[2].t().contiguous().t()
    state.grads[1] = torch.ones(1).expand(3, 5)
    expected.grads[1] = torch.ones(3, 5)
    step(state)
    step(expected)
    assert_close(state, expected, 0.0)


def test_no_parameters(backend) -> None:
    one = torch.tensor(1.0)
    ops.adam_([], [], [], [], weight_decay=[], learning_rate=one, grad_scale=one)


def test_opcheck(native_op) -> None:
    state = State()
    arguments = (*state.lists(), DECAYS, torch.tensor(0.1), torch.tensor(1.0), 0.9, 0.999, 1e-6)
    torch.library.opcheck(native_op, arguments)


def test_compiles(backend) -> None:
    state = State()
    expected = state.clone()
    step(expected)
    torch.compile(step, fullgraph=True, backend="aot_eager")(state)
    assert_close(state, expected, 1e-7)


def test_deterministic(backend, assert_deterministic) -> None:
    start = State()

    def run() -> list[Tensor]:
        state = start.clone()
        step(state)
        return [x for tensors in vars(state).values() for x in tensors]

    assert_deterministic(run)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grads": []}, ValueError, "adam: grads must have one entry for each of the 1 params, got 0"),
        (
            {"weight_decay": [0.1, 0.2]},
            ValueError,
            "adam: weight_decay must have one entry for each of the 1 params, got 2",
        ),
        ({"params": [torch.ones(6).int()]}, TypeError, r"adam: params\[0\] must be float32 or"),
        ({"grads": [torch.ones(6).double()]}, TypeError, r"adam: grads\[0\] must be float32, got float64"),
        ({"grads": [torch.ones(5)]}, ValueError, r"adam: grads\[0\] must have shape \[6\], got \[5\]"),
        ({"exp_avg": [torch.ones(6).bfloat16()]}, TypeError, r"adam: exp_avg\[0\] must be float32, got bfloat16"),
        ({"exp_avg_sq": [torch.ones(12)[::2]]}, ValueError, r"adam: exp_avg_sq\[0\] must be contiguous"),
        ({"learning_rate": 0.1}, TypeError, "adam: learning_rate must be a Tensor, got float"),
        ({"grad_scale": torch.ones(1)}, ValueError, r"adam: grad_scale must have shape \[\], got \[1\]"),
    ],
)
def test_errors(change, error, message) -> None:
    arguments = {
        **{name: [torch.ones(6)] for name in ("params", "grads", "exp_avg", "exp_avg_sq")},
        "weight_decay": [0.0], "learning_rate": torch.tensor(0.1), "grad_scale": torch.tensor(1.0), **change,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        ops.adam_(**arguments)
