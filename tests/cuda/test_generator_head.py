"""The CUDA kernels of generator_head in the emulator, through their torch boundary.

The reference gives loss, samples and argmax; torch in float64 the gradients. Under the emulator blocks are cut as if
the device had two multiprocessors, and chunks of slots are small (csrc/cuda/generator_head_launch.h), so that small
shapes have several parts and chunks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import reference, rng

DTYPES = [torch.bfloat16, torch.float16]
HOPPER, AMPERE, ADA = 90, 80, 86  # compute capabilities: wgmma; mma.sync; the same with 99 KiB of shared memory

# (slots, features, vocabulary). Up to 128 features the backward recomputes, beyond it goes in chunks; up to 256 a block
# keeps its rows in shared memory.
CASES = [
    (1, 8, 1),  # one column: its logit is the log-sum-exp
    (7, 40, 67),
    (33, 16, 130),
    (5, 64, 64),
    (20, 24, 65),
    (12, 7, 200),  # features that are no multiple of 8
    (6, 1, 5),
    (9, 128, 2100),  # several parts of the vocabulary, the last one short
    (150, 128, 520),  # several blocks of slots
    (40, 136, 70),  # in chunks
    (300, 200, 150),  # two chunks
    (40, 256, 1100),  # a stage a chunk: the ring has one tile
    (11, 321, 1100),  # rows that do not stay
    (140, 520, 70),
]
CHUNKED_CASES, WIDE_CASES = CASES[9:11], CASES[11:]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("generator_head")


@pytest.fixture
def on(emulator):
    """``with on(capability)``: kernels are chosen for such a device, unless it is a real one."""
    return lambda capability: emulator.configured(compute_capability=capability)


@pytest.fixture
def assert_equals_the_reference(emulator, ops) -> Callable[..., tuple[Tensor, ...]]:
    def check(inputs: dict[str, Tensor], how: tuple) -> tuple[Tensor, ...]:
        """Samples and argmax equal; a GPU's approximate logarithms may turn a tie once in 10,000 draws."""
        outputs = ops.generator_head(*inputs.values(), *how)
        loss, sampled, predicted, lse = reference.generator_head(*inputs.values(), *how)
        used = inputs["targets"] != -100
        assert [x.dtype for x in outputs] == [torch.float32, torch.int64, torch.int64, torch.float32]
        torch.testing.assert_close(outputs[0], loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(outputs[3], torch.where(used, lse, 0.0), rtol=1e-5, atol=1e-5)
        for ours, expected in ((outputs[1], sampled), (outputs[2], predicted)):
            assert (ours != expected).sum() <= (1 if emulator.real else 0)
        return outputs

    return check


def make(slots: int, features: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    targets = torch.randint(vocabulary, (slots,))
    targets[slots // 3 :: 4] = -100
    return {
        "hidden": torch.randn(slots, features).to(dtype),
        "weight": (torch.randn(vocabulary, features) * 2 / features**0.5).to(dtype),
        "bias": torch.randn(vocabulary).to(dtype),
        "targets": targets,
    }


def draw(
    temperature: float = 1.0, disallow_correct: bool = False, seed: int = 2**40 + 8, step: int = 5, site: int = 2
) -> tuple:
    return temperature, disallow_correct, rng.make(seed, step), site


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(assert_equals_the_reference, case, dtype) -> None:
    assert_equals_the_reference(make(*case, dtype), draw())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_on_ampere(assert_equals_the_reference, on, case) -> None:
    with on(AMPERE):
        assert_equals_the_reference(make(*case, torch.bfloat16), draw())


@pytest.mark.parametrize("case", WIDE_CASES, ids=str)
def test_forward_on_ada(assert_equals_the_reference, on, case) -> None:
    with on(ADA):
        assert_equals_the_reference(make(*case, torch.float16), draw(0.9, True))


@pytest.mark.parametrize("disallow", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("case", "device"),
    [
        ((60, 16, 40), HOPPER),
        ((150, 32, 700), HOPPER),
        ((60, 264, 600), HOPPER),
        ((60, 264, 200), AMPERE),
        ((150, 32, 700), AMPERE),
    ],
    ids=str,
)
def test_temperature_and_disallow_correct(assert_equals_the_reference, on, case, device, temperature, disallow) -> None:
    inputs = make(*case, torch.bfloat16)
    likely = F.linear(*(inputs[name].float() for name in ("hidden", "weight", "bias"))).argmax(-1)
    inputs["targets"] = torch.where(inputs["targets"] == -100, -100, likely)
    with on(device):
        sampled = assert_equals_the_reference(inputs, draw(temperature, disallow))[1]
    used = inputs["targets"] != -100
    assert bool((sampled == inputs["targets"])[used].any()) != disallow


@pytest.mark.parametrize("device", [HOPPER, AMPERE])
def test_whole_vocabulary(assert_equals_the_reference, on, device) -> None:
    with on(device):
        assert_equals_the_reference(make(130, 16, 30522, torch.bfloat16), draw())


def test_every_argument_of_the_draw_counts(assert_equals_the_reference) -> None:
    inputs = make(40, 8, 300, torch.bfloat16)
    base = assert_equals_the_reference(inputs, draw())[1]
    for change in ({"seed": 1}, {"step": 6}, {"site": 3}):
        assert not torch.equal(assert_equals_the_reference(inputs, draw(**change))[1], base)


def test_slots_draw_for_themselves(ops) -> None:
    inputs = make(200, 16, 300, torch.bfloat16)
    inputs["targets"] = inputs["targets"].clamp(min=0)
    every = ops.generator_head(*inputs.values(), *draw())[1]
    few = {n: x[:9] if n in ("hidden", "targets") else x for n, x in inputs.items()}
    assert torch.equal(ops.generator_head(*few.values(), *draw())[1], every[:9])


def test_distribution(ops) -> None:
    """χ² of 10,000 draws from 150 columns within 4 standard deviations: equal rows, the logits in the bias."""
    draws, columns = 10_000, 150
    logits = torch.randn(columns)
    hidden, weight = torch.zeros(draws, 8).bfloat16(), torch.zeros(columns, 8).bfloat16()
    sampled = ops.generator_head(hidden, weight, logits, torch.zeros(draws, dtype=torch.int64), *draw(0.7))[1]
    expected = torch.softmax(logits.double() / 0.7, 0) * draws
    statistic = ((torch.bincount(sampled, minlength=columns) - expected) ** 2 / expected).sum()
    assert abs(statistic - (columns - 1)) < 4 * (2 * (columns - 1)) ** 0.5


@pytest.mark.parametrize("device", [HOPPER, AMPERE])
def test_large_logits(assert_equals_the_reference, on, device) -> None:
    """No overflow, and the sample is the only likely column; columns of no weight are left out."""
    inputs = make(6, 16, 130, torch.bfloat16)
    inputs["bias"] = inputs["bias"].float()
    inputs["bias"][77], inputs["bias"][:20] = 3e4, -torch.inf
    inputs["targets"] = torch.arange(6) + 50
    for disallow in (False, True):
        with on(device):
            outputs = assert_equals_the_reference(inputs, draw(disallow_correct=disallow))
        assert (outputs[1] == 77).all()
        assert (outputs[2] == 77).all()


@pytest.mark.parametrize("device", [HOPPER, AMPERE])
def test_degenerate_rows(ops, on, device) -> None:
    """Nothing to draw: the only column is the target, or no column has weight."""
    inputs = make(3, 8, 1, torch.bfloat16)
    inputs["targets"] = torch.zeros(3, dtype=torch.int64)
    with on(device):
        assert ops.generator_head(*inputs.values(), *draw(disallow_correct=True))[1].tolist() == [0, 0, 0]
        inputs = make(3, 8, 70, torch.bfloat16)
        inputs["bias"][:] = -torch.inf
        _, sampled, predicted, lse = ops.generator_head(*inputs.values(), *draw())
    assert sampled.tolist() == predicted.tolist() == [0, 0, 0]
    assert (lse[inputs["targets"] != -100] == -torch.inf).all()


@pytest.mark.parametrize("device", [HOPPER, AMPERE])
def test_ties_go_to_the_lowest_column(ops, on, device) -> None:
    inputs = make(5, 8, 1000, torch.bfloat16)
    inputs["hidden"][:] = 0
    inputs["bias"][:] = 0
    for columns in ([3, 2], [70, 3], [190, 70], [700, 69], [999, 300, 256], [513, 255]):
        inputs["bias"][:] = -1
        inputs["bias"][columns] = 1
        with on(device):
            predicted = ops.generator_head(*inputs.values(), *draw())[2]
        assert (predicted[inputs["targets"] != -100] == min(columns)).all()


def test_a_target_outside_gives_nan(ops) -> None:
    """The host cannot look; the emulator would see a read outside."""
    inputs = make(6, 8, 40, torch.bfloat16)
    inputs["targets"] = torch.tensor([0, 40, -1, 2**40, 3, -100])
    for disallow in (False, True):
        loss, *_, lse = ops.generator_head(*inputs.values(), *draw(disallow_correct=disallow))
        assert loss.isnan().tolist() == [False, True, True, True, False, False]
    ops.generator_head_backward(torch.ones(6), *inputs.values(), lse)


def gradients(ops, inputs: dict[str, Tensor], grad: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple]:
    """Ours, and those of torch in float64 and in the inputs' dtype."""
    lse = ops.generator_head(*inputs.values(), *draw())[3]
    ours = ops.generator_head_backward(grad, *inputs.values(), lse)

    def plain(dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [inputs[name].clone().to(dtype).requires_grad_() for name in ("hidden", "weight", "bias")]
        loss = F.cross_entropy(F.linear(*leaves), inputs["targets"], reduction="none", ignore_index=-100)
        return torch.autograd.grad(loss, leaves, grad.to(dtype))

    return ours, plain(torch.float64), plain(inputs["hidden"].dtype)


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm())


@pytest.mark.parametrize(
    ("case", "dtype", "device"),
    [
        *((case, dtype, HOPPER) for case in CASES[1:] for dtype in DTYPES),
        *((case, torch.bfloat16, AMPERE) for case in CHUNKED_CASES),
        *((case, torch.bfloat16, ADA) for case in WIDE_CASES),
    ],
    ids=str,
)
def test_backward(ops, on, case, dtype, device) -> None:
    """Error at most three times that of plain torch in the same dtype, and of the size of one rounding of d."""
    inputs = make(*case, dtype)
    with on(device):
        results = gradients(ops, inputs, torch.randn(case[0]))
    for ours, exact, plain in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert error(ours, exact) <= 3 * error(plain, exact) + 1e-6 * float(exact.norm())
        assert error(ours, exact) <= 0.75 * torch.finfo(dtype).eps * float(exact.norm())


def test_unused_slots(ops, assert_equals_the_reference) -> None:
    """Zeros where unused, wherever these are: a block of slots without a used one is not computed at all."""
    for features in (32, 144):
        inputs = make(400, features, 90, torch.bfloat16)
        inputs["targets"][128:256], inputs["targets"][300:] = -100, -100
        unused = inputs["targets"] == -100
        outputs = assert_equals_the_reference(inputs, draw())
        assert all((x[unused] == 0).all() for x in outputs)
        (dhidden, *_), exact, _ = gradients(ops, inputs, torch.randn(400))
        assert (dhidden[unused] == 0).all()
        assert error(dhidden, exact[0]) < 0.01 * float(exact[0].norm())
        inputs["targets"][:] = -100
        outputs = ops.generator_head(*inputs.values(), *draw())
        assert all((x == 0).all() for x in outputs)
        grads = ops.generator_head_backward(torch.randn(400), *inputs.values(), outputs[3])
        assert all((x == 0).all() for x in grads)


@pytest.mark.parametrize("features", [24, 136])
def test_a_single_used_slot(ops, features) -> None:
    """Its gradient is its own, wherever it is: the target is found in any lane."""
    inputs = make(130, features, 200, torch.bfloat16)
    for slot, target in ((0, 199), (31, 64), (32, 63), (63, 0), (64, 127), (127, 128), (129, 1)):
        inputs["targets"][:] = -100
        inputs["targets"][slot] = target
        ours, exact, _ = gradients(ops, inputs, torch.randn(130))
        for a, b in zip(ours, exact, strict=True):
            assert error(a, b) < 0.01 * float(b.norm())


@pytest.mark.parametrize("features", [32, 144])
def test_parameters_in_float32(ops, features) -> None:
    """The weight is rounded to the activations' dtype once; gradients come in the parameters' dtypes, unrounded."""
    low = make(300, features, 200, torch.bfloat16)
    high = {n: x.float() if n in ("weight", "bias") else x for n, x in low.items()}
    for a, b in zip(
        ops.generator_head(*low.values(), *draw()), ops.generator_head(*high.values(), *draw()), strict=True
    ):
        assert torch.equal(a, b)
    grad = torch.randn(300)
    (_, dweight, dbias), _, _ = gradients(ops, high, grad)
    (_, low_dweight, low_dbias), _, _ = gradients(ops, low, grad)
    assert dweight.dtype == dbias.dtype == torch.float32
    assert torch.equal(dweight.bfloat16(), low_dweight)
    assert torch.equal(dbias.bfloat16(), low_dbias)


@pytest.mark.parametrize("features", [32, 144])
@pytest.mark.parametrize("scale", [1e-7, 1e4])
def test_float16_gradients_of_any_size(ops, features, scale) -> None:
    """d = (softmax - onehot) · grad would be lost in float16's range; sums in float32 bring back what was not."""
    inputs = make(140, features, 90, torch.float16)
    wide = {n: x.float() if n in ("weight", "bias") else x for n, x in inputs.items()}
    wide["hidden"] = (wide["hidden"] * 0.1).half()
    ours, exact, _ = gradients(ops, wide, torch.randn(140) * scale)
    for a, b in zip(ours[1:], exact[1:], strict=True):
        assert error(a, b) < 1e-3 * float(b.norm())


@pytest.mark.parametrize("features", [32, 144])
def test_a_gradient_that_overflowed_stays_visible(ops, features) -> None:
    """Loss scaling looks for inf and NaN."""
    inputs = make(20, features, 90, torch.float16)
    inputs["targets"] = inputs["targets"].clamp(min=0)
    lse = ops.generator_head(*inputs.values(), *draw())[3]
    for bad in (float("inf"), float("nan")):
        grad = torch.ones(20)
        grad[3] = bad
        dhidden, dweight, dbias = ops.generator_head_backward(grad, *inputs.values(), lse)
        assert not dhidden[3].isfinite().any()
        assert not dweight.isfinite().all()
        assert not dbias.isfinite().any()
        assert dhidden[4].isfinite().all()


@pytest.mark.parametrize(("features", "device"), [(72, HOPPER), (264, HOPPER), (24, AMPERE), (144, AMPERE), (264, ADA)])
def test_any_order_of_threads(ops, emulator, features, device) -> None:
    """Several parts of the vocabulary, several chunks of slots: the same bits whichever thread and block runs first."""
    inputs = make(200, features, 1100, torch.bfloat16)
    grad = torch.randn(200)

    def run() -> list[Tensor]:
        outputs = ops.generator_head(*inputs.values(), *draw(0.8, True))
        return [*outputs, *ops.generator_head_backward(grad, *inputs.values(), outputs[3])]

    emulator.same_under_every_schedule(run, compute_capability=device)


def test_strides_and_alignment(ops) -> None:
    inputs = make(20, 24, 67, torch.bfloat16)
    strided = {n: torch.stack([x, x], -1)[..., 0] for n, x in inputs.items()}
    strided["weight"] = inputs["weight"].t().contiguous().t()
    shifted = dict(inputs)
    for name in ("hidden", "weight"):
        x = torch.zeros(inputs[name].numel() + 1, dtype=torch.bfloat16)
        x[1:] = inputs[name].flatten()
        shifted[name] = x[1:].view(inputs[name].shape)
    expected = ops.generator_head(*inputs.values(), *draw())
    grad = torch.randn(20, 2)[:, 0]
    expected += ops.generator_head_backward(grad, *inputs.values(), expected[3])
    for other in (strided, shifted):
        outputs = ops.generator_head(*other.values(), *draw())
        outputs += ops.generator_head_backward(grad, *other.values(), outputs[3])
        for a, b in zip(outputs, expected, strict=True):
            assert torch.equal(a, b)


def test_no_slots(ops) -> None:
    inputs = make(0, 8, 11, torch.bfloat16)
    outputs = ops.generator_head(*inputs.values(), *draw())
    assert all(x.shape == (0,) for x in outputs)
    dhidden, dweight, dbias = ops.generator_head_backward(torch.ones(0), *inputs.values(), outputs[3])
    assert dhidden.shape == (0, 8)
    assert (dweight == 0).all()
    assert (dbias == 0).all()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden", lambda x: x.float(), "generator_head: hidden must be bfloat16 or float16 on CUDA"),
        ("hidden", lambda x: x[0], r"generator_head: hidden must have shape \[slots, features\], got \[8\]"),
        ("weight", lambda x: x[:, 1:], r"generator_head: weight must have shape \[vocabulary, 8\], got \[5, 7\]"),
        ("weight", lambda x: x[:0], "generator_head: weight must have 1 to"),
        ("weight", lambda x: x.half(), "generator_head: weight must be float32 or of the dtype of the activations"),
        ("bias", lambda x: x[1:], r"generator_head: bias must have shape \[5\], got \[4\]"),
        ("bias", lambda x: x.half(), "generator_head: bias must be float32 or of the dtype of the activations"),
        ("targets", lambda x: x.int(), r"generator_head: targets must be int64 of shape \[3\]"),
        ("targets", lambda x: x[1:], r"generator_head: targets must be int64 of shape \[3\], got \[2\]"),
    ],
)
def test_errors(ops, name, change, message) -> None:
    inputs = make(3, 8, 5, torch.bfloat16)
    inputs[name] = change(inputs[name])
    with pytest.raises(RuntimeError, match=message):
        ops.generator_head(*inputs.values(), *draw())
    with pytest.raises(RuntimeError, match=message):
        ops.generator_head_backward(torch.ones(3), *inputs.values(), torch.ones(3))


def test_errors_of_one_pass(ops) -> None:
    inputs = make(3, 8, 5, torch.bfloat16)
    for temperature in (0.0, float("nan")):
        with pytest.raises(RuntimeError, match="generator_head: temperature must be greater than 0"):
            ops.generator_head(*inputs.values(), *draw(temperature))
    with pytest.raises(
        RuntimeError, match=r"generator_head_backward: grad must be float32 of shape \[3\], got shape \[2\]"
    ):
        ops.generator_head_backward(torch.ones(2), *inputs.values(), torch.ones(3))
    with pytest.raises(
        RuntimeError, match=r"generator_head_backward: lse must have the shape of grad, \[3\], got \[4\]"
    ):
        ops.generator_head_backward(torch.ones(3), *inputs.values(), torch.ones(4))
