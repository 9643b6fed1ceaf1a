"""The Triton kernels of generator_head against the reference: loss and gradients to rounding, the columns equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference, rng

# (slots, features, vocabulary). float16 up to 128 features computes logits again in backward, everything else stores.
CASES = [(1, 1, 1), (7, 40, 67), (130, 16, 40), (5, 130, 200), (33, 24, 450)]


def make(
    slots: int, features: int, vocabulary: int, dtype: torch.dtype, device: str, parameters: torch.dtype | None = None
) -> dict[str, Tensor]:
    targets = torch.randint(vocabulary, (slots,))
    targets[slots // 3 :: 4] = -100
    return {
        "hidden": torch.randn(slots, features).to(device, dtype),
        "weight": (torch.randn(vocabulary, features) * 2 / features**0.5).to(device, parameters or dtype),
        "bias": torch.randn(vocabulary).to(device, parameters or dtype),
        "targets": targets.to(device),
    }


def draw(
    device: str, temperature: float = 1.0, disallow_correct: bool = False, *, seed: int = 2**34 + 5, step: int = 3
) -> tuple:
    return temperature, disallow_correct, rng.make(seed, step, device), 7


def forward(inputs: dict[str, Tensor], how: tuple) -> tuple[Tensor, ...]:
    from electra_fast.triton import generator_head

    return generator_head.forward(*inputs.values(), *how)


def backward(inputs: dict[str, Tensor], grad: Tensor, lse: Tensor) -> tuple[Tensor, ...]:
    from electra_fast.triton import generator_head

    return generator_head.backward(grad, *inputs.values(), lse)


def assert_equals_the_reference(inputs: dict[str, Tensor], how: tuple) -> tuple[Tensor, ...]:
    """All four outputs. A GPU's approximate logarithms may turn a tie once in 10,000 draws."""
    outputs, expected = forward(inputs, how), reference.generator_head(*inputs.values(), *how)
    used = inputs["targets"] != -100
    assert [x.dtype for x in outputs] == [torch.float32, torch.int64, torch.int64, torch.float32]
    torch.testing.assert_close(outputs[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs[3], torch.where(used, expected[3], 0.0), rtol=1e-5, atol=1e-5)
    for actual, wanted in zip(outputs[1:3], expected[1:3], strict=True):
        assert int((actual != wanted).sum()) <= (0 if actual.device.type == "cpu" else 1)
    return outputs


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch hands out uninitialised holds NaN, and the largest integers."""

    def poison(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments, **options) -> Tensor:
            memory = allocate(*arguments, **options)
            return memory.fill_(torch.nan if memory.is_floating_point() else torch.iinfo(memory.dtype).max)

        return call

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch):
    """``configure(block_m, block_n, block_k)``: of every kernel."""
    from electra_fast.triton import generator_head
    from electra_fast.triton.configurations import Configuration

    return lambda *blocks: monkeypatch.setattr(
        generator_head, "_configuration", lambda *_: Configuration("a test", *blocks)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_reference(case, dtype, device, poisoned, assert_matches_reference) -> None:
    inputs = make(*case, dtype, device) | {"rng": rng.make(1, 0, device)}
    assert_matches_reference(ops.generator_head, inputs)


@pytest.mark.parametrize(
    ("case", "temperature", "disallow"),
    [((60, 16, 40), 1.0, False), ((60, 16, 40), 0.5, True), ((20, 40, 200), 2.0, False), ((20, 40, 200), 1.0, True)],
    ids=str,
)
def test_outputs(case, temperature, disallow, dtype, device, poisoned) -> None:
    inputs = make(*case, dtype, device)
    likely = F.linear(*(inputs[name].double() for name in ("hidden", "weight", "bias"))).argmax(-1)
    inputs["targets"] = torch.where(inputs["targets"] == -100, -100, likely)
    sampled = assert_equals_the_reference(inputs, draw(device, temperature, disallow))[1]
    if disallow:
        assert (sampled != inputs["targets"])[inputs["targets"] != -100].all()


def test_whole_vocabulary(device, configure, poisoned) -> None:
    configure(16, 256, 16)  # as few programs and steps as can be
    assert_equals_the_reference(make(3, 4, 30522, torch.float32, device), draw(device))


def test_every_argument_of_the_draw_counts(device) -> None:
    inputs = make(32, 4, 130, torch.float32, device)
    temperature, disallow, _, site = draw(device)
    states = [rng.make(*state, device) for state in ((1, 3), (1, 4), (2**40 + 1, 3))]
    hows = [(temperature, disallow, state, site) for state in states] + [(temperature, disallow, states[0], 2**32 - 1)]
    samples = [assert_equals_the_reference(inputs, how)[1] for how in hows]
    for other in samples[1:]:
        assert not torch.equal(other, samples[0])


def test_slots_draw_for_themselves(device) -> None:
    inputs = make(50, 16, 130, torch.float32, device)
    few = {name: x[:9] if name in ("hidden", "targets") else x for name, x in inputs.items()}
    assert torch.equal(forward(few, draw(device))[1], forward(inputs, draw(device))[1][:9])


def test_distribution(device, configure) -> None:
    """χ² of 4000 equal slots over three groups of columns."""
    configure(1024, 64, 16)
    columns, slots = 140, 4000
    inputs = make(1, 4, columns, torch.float32, device)
    inputs["hidden"], inputs["targets"] = (
        inputs["hidden"].expand(slots, -1),
        inputs["targets"].clamp(min=0).repeat(slots),
    )
    sampled = forward(inputs, draw(device))[1]
    expected = F.linear(inputs["hidden"][0], inputs["weight"], inputs["bias"]).softmax(-1) * slots
    counts = torch.bincount(sampled, minlength=columns)
    enough = expected > 5
    statistic = float(((counts - expected)[enough].square() / expected[enough]).sum())
    freedom = int(enough.sum())
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_large_logits(device) -> None:
    """No overflow, and the sample is the only likely column; columns of no weight are left out."""
    inputs = make(6, 16, 130, torch.float32, device)
    inputs["bias"][77], inputs["bias"][:20] = 3e4, -torch.inf
    inputs["targets"] = torch.arange(6, device=device) + 50
    for disallow in (False, True):
        outputs = assert_equals_the_reference(inputs, draw(device, disallow_correct=disallow))
        assert (outputs[1] == 77).all()
        assert (outputs[2] == 77).all()


def test_degenerate_rows(device) -> None:
    """Nothing to draw: the only column is the target, or no column has weight."""
    inputs = make(3, 8, 1, torch.float32, device)
    inputs["targets"] = torch.zeros(3, dtype=torch.int64, device=device)
    assert forward(inputs, draw(device, disallow_correct=True))[1].tolist() == [0, 0, 0]
    inputs = make(3, 8, 70, torch.float32, device)
    inputs["bias"][:] = -torch.inf
    _, sampled, predicted, lse = forward(inputs, draw(device))
    assert sampled.tolist() == predicted.tolist() == [0, 0, 0]
    assert (lse[inputs["targets"] != -100] == -torch.inf).all()


def test_ties_go_to_the_lowest_column(device) -> None:
    inputs = make(5, 8, 330, torch.float32, device)
    inputs["hidden"][:] = 0
    for columns in ([3, 2], [190, 70], [329, 300, 128]):
        inputs["bias"][:] = -1
        inputs["bias"][columns] = 1
        predicted = forward(inputs, draw(device))[2]
        assert (predicted[inputs["targets"] != -100] == min(columns)).all()


def test_nan_stays_visible(device) -> None:
    inputs = make(6, 8, 70, torch.float32, device)
    inputs["targets"] = torch.arange(6, device=device)
    inputs["hidden"][4] = torch.nan
    loss, sampled, predicted, _ = forward(inputs, draw(device))
    assert loss.isnan().tolist() == [False] * 4 + [True, False]
    inputs["bias"][69] = torch.nan
    loss, sampled, predicted, _ = forward(inputs, draw(device))
    assert loss.isnan().all()
    for column in (sampled, predicted):
        assert ((column >= 0) & (column < 70)).all()


@pytest.mark.parametrize("features", [16, 136])
def test_unused_slots(features, dtype, device, configure, poisoned) -> None:
    """Zeros where unused, wherever these are, whatever their gradient; a block without a used slot is not computed."""
    configure(64, 64, 64)
    inputs = make(200, features, 40, dtype, device)
    inputs["targets"][60:195] = -100
    unused = inputs["targets"] == -100
    grad = torch.randn(200, device=device)
    grad[unused] = 1e30
    outputs = forward(inputs, draw(device))
    dhidden, dweight, dbias = backward(inputs, grad, outputs[3])
    assert all((x[unused] == 0).all() for x in (*outputs, dhidden))
    assert dhidden[~unused].any()
    assert all(x.isfinite().all() for x in (dhidden, dweight, dbias))
    inputs["targets"][:] = -100
    outputs = forward(inputs, draw(device))
    assert all((x == 0).all() for x in (*outputs, *backward(inputs, grad, outputs[3])))


@pytest.mark.parametrize("features", [24, 136])
@pytest.mark.parametrize("size", [1.0, 1e-7, 1e4])
def test_float32_parameters_beside_float16(size, features, device) -> None:
    """The weight is rounded as the activations are; bias and the parameters' gradients are not. Gradients of any size
    neither vanish nor overflow on their way through float16."""
    inputs = make(20, features, 67, torch.float16, device, torch.float32)
    lse = assert_equals_the_reference(inputs | {"weight": inputs["weight"].half()}, draw(device))[3]
    assert torch.equal(forward(inputs, draw(device))[3], lse)
    leaves = [inputs[name].to(torch.float16).double().requires_grad_() for name in ("hidden", "weight")]
    leaves.append(inputs["bias"].double().requires_grad_())
    grad = torch.randn(20, device=device) * size
    loss = F.cross_entropy(F.linear(*leaves), inputs["targets"], reduction="none", ignore_index=-100)
    exact = torch.autograd.grad(loss, leaves, grad.double())
    for name, actual, expected in zip(("hidden", "weight", "bias"), backward(inputs, grad, lse), exact, strict=True):
        assert actual.dtype == inputs[name].dtype
        if name != "hidden" or size == 1.0:  # a gradient of hidden is float16 itself
            assert (actual - expected).norm() <= 5e-4 * expected.norm()


@pytest.mark.parametrize("features", [16, 136])
def test_a_gradient_that_overflowed_stays_visible(features, device) -> None:
    inputs = make(6, features, 40, torch.float16, device)
    inputs["targets"] = torch.arange(6, device=device)
    grad = torch.ones(6, device=device)
    grad[2] = torch.inf
    dhidden, dweight, dbias = backward(inputs, grad, forward(inputs, draw(device))[3])
    assert not dhidden[2].isfinite().all()
    assert not dweight.isfinite().all()
    assert not dbias.isfinite().all()


@pytest.mark.parametrize(("blocks", "steps"), [((16, 64, 16), 2), ((32, 128, 64), 1), ((32, 256, 64), 2)], ids=str)
@pytest.mark.parametrize("features", [16, 136])
def test_configurations_and_parts_change_nothing_but_rounding(
    blocks, steps, features, dtype, device, configure, monkeypatch
) -> None:
    from electra_fast.triton import generator_head, generator_head_chunks, generator_head_recompute

    inputs, grad = make(20, features, 300, dtype, device), torch.randn(20, device=device)
    expected = forward(inputs, draw(device, 0.7))
    expected = (*expected, *backward(inputs, grad, expected[3]))
    configure(*blocks)
    for module in (generator_head, generator_head_recompute):
        monkeypatch.setattr(module, "steps_per_part", lambda programs, tiles: steps)
    monkeypatch.setattr(generator_head_chunks, "CHUNK_BYTES", 20 * 256 * inputs["hidden"].itemsize)
    actual = forward(inputs, draw(device, 0.7))
    actual = (*actual, *backward(inputs, grad, actual[3]))
    rounding = 4e-6 if dtype == torch.float32 else 2e-3
    for ours, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("features", [16, 136])
def test_deterministic(features, dtype, device) -> None:
    inputs, grad = make(20, features, 130, dtype, device), torch.randn(20, device=device)
    first, second = (forward(inputs, draw(device)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(*(backward(inputs, grad, first[3]) for _ in range(2)), strict=True):
        assert torch.equal(a, b)


def test_strides(device) -> None:
    """Every other row and column, transposed storage, an expanded gradient."""
    inputs = make(9, 24, 70, torch.float32, device)
    strided = {
        "hidden": torch.stack([inputs["hidden"]] * 2, -1)[..., 0],
        "weight": inputs["weight"].t().contiguous().t(),
        "bias": inputs["bias"].repeat_interleave(2)[::2],
        "targets": inputs["targets"].repeat_interleave(2)[::2],
    }
    assert not any(x.is_contiguous() for x in strided.values())
    expected, actual = (forward(x, draw(device)) for x in (inputs, strided))
    grad = torch.ones(1, device=device).expand(9)
    gradients = [backward(x, grad, expected[3]) for x in (inputs, strided)]
    for a, b in zip((*actual, *gradients[1]), (*expected, *gradients[0]), strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous()


def test_no_slots(dtype, device) -> None:
    inputs = make(0, 8, 11, dtype, device)
    outputs = forward(inputs, draw(device))
    assert [x.shape for x in outputs] == [(0,)] * 4
    dhidden, dweight, dbias = backward(inputs, outputs[0], outputs[3])
    assert dhidden.shape == (0, 8)
    assert not dweight.any()
    assert not dbias.any()


@pytest.mark.parametrize(("programs", "tiles"), [(1, 1), (21, 239), (154, 239), (400, 3), (1, 5000)])
def test_parts_cover_every_step(programs, tiles) -> None:
    """Parts of equal length but for the last, none empty, and no more than finish's programs read at once."""
    from electra_fast.triton.generator_head_tiles import MOST_PARTS, steps_per_part

    steps = steps_per_part(programs, tiles)
    parts = -(-tiles // steps)
    assert 1 <= parts <= MOST_PARTS
    assert (parts - 1) * steps < tiles <= parts * steps


@pytest.mark.parametrize(
    ("slots", "columns", "block"), [(1, 1, 64), (2585, 30522, 128), (19660, 30522, 128), (10**7, 300, 128)]
)
def test_chunks_are_even(slots, columns, block) -> None:
    from electra_fast.triton.generator_head_chunks import CHUNK_BYTES, chunk_columns

    chunk = chunk_columns(slots, columns, block, 2)
    assert chunk % block == 0
    assert slots * chunk * 2 <= max(CHUNK_BYTES, slots * block * 2)
    chunks = -(-columns // chunk)
    assert chunk - block < -(-columns // chunks) + block
