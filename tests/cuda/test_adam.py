"""The CUDA kernel of adam in the emulator, through its torch boundary, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import reference

BETAS_AND_EPS = (0.9, 0.999, 1e-6)


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("adam")


def make(sizes: list[tuple[int, ...]]) -> tuple[list[Tensor], ...]:
    """params, grads, exp_avg, exp_avg_sq."""
    p, g, m, v = ([torch.randn(size) for size in sizes] for _ in range(4))
    return p, g, m, [x.square() for x in v]


def copies(lists: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
    return tuple([x.clone() for x in one] for one in lists)


def scalars(learning_rate: float = 0.1, scale: float = 0.5, dtype: torch.dtype = torch.float32) -> tuple:
    return torch.tensor(learning_rate, dtype=dtype), torch.tensor(scale, dtype=dtype)


def check(ops, lists: tuple[list[Tensor], ...], decay: list[float], rates: tuple[Tensor, Tensor]) -> None:
    before = copies(lists)
    wide = tuple([x.double() for x in one] for one in lists)
    ops.adam_(*lists, decay, *rates, *BETAS_AND_EPS)
    reference.adam_(*wide, decay, *rates, *BETAS_AND_EPS)
    names = ("params", "grads", "exp_avg", "exp_avg_sq")
    for name, actual, wanted, old in zip(names, lists, wide, before, strict=True):
        for a, b, untouched in zip(actual, wanted, old, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
            assert torch.equal(a, untouched) == (name == "grads" or a.numel() == 0), name


def test_matches_reference(ops) -> None:
    """One block and several, a last access that is not whole, nothing at all, and a scalar."""
    lists = make([(3,), (4096,), (2, 4099), (0,), (), (64, 129), (1, 8)])
    check(ops, lists, [0.01 * i for i in range(7)], scalars())


def test_more_tensors_than_a_launch_holds(ops) -> None:
    lists = make([(1 + i % 7,) for i in range(171)])
    check(ops, lists, [0.1 * (i % 3) for i in range(171)], scalars())


def test_several_steps_follow_the_scalars(ops) -> None:
    lists = make([(130,), (5, 5)])
    wide = tuple([x.double() for x in one] for one in lists)
    for step in range(4):
        rates = scalars(0.1 / (step + 1), 1.0 - 0.2 * step, torch.float64 if step % 2 else torch.float32)
        ops.adam_(*lists, [0.01, 0.0], *rates, *BETAS_AND_EPS)
        reference.adam_(*wide, [0.01, 0.0], *rates, *BETAS_AND_EPS)
    for one, other in zip(lists, wide, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_any_alignment(ops) -> None:
    """Views that accesses of 16 bytes do not fit, and the elements beside them untouched."""
    buffers = [torch.randn(40) for _ in range(4)]
    buffers[3].square_()
    before = [b.clone() for b in buffers]
    lists = tuple([b[1 + i : 31 + i]] for i, b in enumerate(buffers))
    check(ops, lists, [0.0], scalars())
    for i, (a, b) in enumerate(zip(buffers, before, strict=True)):
        assert torch.equal(a[: 1 + i], b[: 1 + i])
        assert torch.equal(a[31 + i :], b[31 + i :])


def test_nothing_to_do(ops) -> None:
    ops.adam_([], [], [], [], [], *scalars(), *BETAS_AND_EPS)
    lists = make([(0,)] * 100)
    ops.adam_(*lists, [0.0] * 100, *scalars(), *BETAS_AND_EPS)


def test_same_bits_in_any_order(ops, emulator) -> None:
    lists = make([(5000,), (37,)])

    def run() -> list[Tensor]:
        copy = copies(lists)
        ops.adam_(*copy, [0.01, 0.0], *scalars(), *BETAS_AND_EPS)
        return [x for one in copy for x in one]

    emulator.same_under_every_schedule(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: [torch.ones(8).double()]}, r"adam: params\[0\] must be float32 on CUDA"),
        ({1: [torch.ones(8).half()]}, r"adam: grads\[0\] must be float32 on CUDA"),
        ({2: [torch.ones(9)]}, r"adam: exp_avg\[0\] must have the shape of its parameter, \[8\], got \[9\]"),
        ({3: [torch.ones(16)[::2]]}, r"adam: exp_avg_sq\[0\] must be contiguous"),
        ({1: []}, "must have the same length, got 1, 0, 1, 1, 1"),
        ({5: torch.ones(2)}, "adam: learning_rate must have one element, got 2"),
        ({6: torch.ones(1).half()}, "adam: grad_scale must be float32 or float64"),
    ],
)
def test_errors(ops, change, message) -> None:
    arguments = [*([torch.ones(8)] for _ in range(4)), [0.0], *scalars(), *BETAS_AND_EPS]
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(RuntimeError, match=message):
        ops.adam_(*arguments)
