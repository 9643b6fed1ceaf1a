"""generator_head: loss against F.cross_entropy, samples by the contract's rules, and their distribution."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.reference.generator_head import sample
from electra_fast.reference.philox import random_words

OP = "generator_head"

# (slots, hidden width, vocabulary)
CASES = [(1, 1, 1), (7, 40, 67), (33, 16, 130), (5, 64, 64), (20, 24, 65), (12, 128, 4096), (0, 8, 11), (130, 7, 200)]


def make(slots: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    targets = torch.randint(vocabulary, (slots,))
    targets[slots // 3 :: 4] = -100
    return {
        "hidden": torch.randn(slots, width).to(dtype),
        "weight": (torch.randn(vocabulary, width) * 2 / width**0.5).to(dtype),
        "bias": torch.randn(vocabulary).to(dtype),
        "targets": targets,
    }


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """In the inputs' dtype; handed over in the dtype of ours."""
    loss = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none", ignore_index=-100)
    return loss if loss.dtype == torch.float64 else loss.float()


def loss(**inputs: Tensor) -> Tensor:
    return ops.generator_head(**inputs, rng=rng.make(1)).loss


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_matches_torch(backend, dtype, case, assert_matches_plain) -> None:
    assert_matches_plain(loss, plain, make(*case, dtype))


def test_whole_vocabulary(backend, assert_matches_plain) -> None:
    assert_matches_plain(loss, plain, make(9, 32, 30522))


def test_float32_parameters_beside_bfloat16(backend, assert_matches_plain) -> None:
    inputs = make(17, 64, 130, torch.bfloat16)
    mixed = {n: x.float() if n in ("weight", "bias") else x for n, x in inputs.items()}

    def in_bfloat16(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.bfloat16
        return plain(hidden.to(dtype), weight.to(dtype), bias.to(dtype), targets)

    assert_matches_plain(loss, in_bfloat16, mixed)


def test_unused_slots(backend, gradients) -> None:
    inputs = make(40, 16, 67)
    unused = inputs["targets"] == -100
    out = ops.generator_head(**inputs, rng=rng.make(1))
    assert (out.loss[unused] == 0).all()
    assert (out.sampled[unused] == 0).all()
    assert (out.predicted[unused] == 0).all()
    _, grads = gradients(loss, inputs)
    assert (grads["hidden"][unused] == 0).all()
    inputs["targets"][:] = -100
    value, grads = gradients(loss, inputs)
    assert (value == 0).all()
    assert all((grad == 0).all() for grad in grads.values())


def test_predicted_is_the_argmax(backend) -> None:
    inputs = make(100, 16, 1000)
    out = ops.generator_head(**inputs, rng=rng.make(1))
    expected = F.linear(inputs["hidden"], inputs["weight"], inputs["bias"]).argmax(-1)
    used = inputs["targets"] != -100
    assert torch.equal(out.predicted[used], expected[used])
    assert out.predicted.dtype == out.sampled.dtype == torch.int64


def test_large_logits(backend) -> None:
    """No overflow, and the sample is the only likely column."""
    inputs = make(6, 16, 130)
    inputs["bias"][77] = 3e4
    inputs["targets"] = torch.arange(6)
    out = ops.generator_head(**inputs, rng=rng.make(1))
    torch.testing.assert_close(out.loss, plain(**inputs), rtol=1e-5, atol=1e-2)
    assert (out.sampled == 77).all()


def sample_by_the_rules(logits: Tensor, state: Tensor, site: int) -> list[int]:
    """Two stages in float64, one slot after another."""
    chosen = []
    for slot, row in enumerate(logits.double()):
        scores, groups = [], row.split(64)
        for g, group in enumerate(groups):
            word = int(random_words(torch.tensor([g // 4]), slot, state, site)[0, g % 4])
            exponential = -torch.log1p(torch.tensor(-(word + 0.5) * 2.0**-32, dtype=torch.float64))
            scores.append(torch.logsumexp(group, 0) - torch.log(exponential))
        winner = int(torch.stack(scores).argmax())
        weights = torch.exp(groups[winner] - groups[winner].max())
        u = (int(random_words(torch.tensor([2**31]), slot, state, site)[0, 0]) + 0.5) * 2.0**-32
        chosen.append(winner * 64 + int((weights.cumsum(0) > u * weights.sum()).nonzero()[0]))
    return chosen


@pytest.mark.parametrize(("temperature", "disallow"), [(1.0, False), (0.5, False), (2.0, True)])
@pytest.mark.parametrize("vocabulary", [40, 64, 200, 1000])
def test_sample_follows_the_rules(backend, vocabulary, temperature, disallow) -> None:
    inputs = make(60, 16, vocabulary)
    inputs["targets"] = torch.randint(vocabulary, (60,))
    state, site = rng.make(2**34 + vocabulary, 3), 5
    out = ops.generator_head(**inputs, temperature=temperature, disallow_correct=disallow, rng=state, site=site)
    logits = F.linear(*(inputs[n].double() for n in ("hidden", "weight", "bias"))) / temperature
    if disallow:
        logits[torch.arange(60), inputs["targets"]] = -torch.inf
        assert (out.sampled != inputs["targets"]).all()
    assert out.sampled.tolist() == sample_by_the_rules(logits, state, site)


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(30522, torch.float32), (4097, torch.float64), (30522, torch.bfloat16)]
)
def test_native_samples_are_the_reference_s(native_op, vocabulary, dtype) -> None:
    """Equal but for ties within rounding: at most 1e-4 of the draws (one in bfloat16's coarser products)."""
    inputs = make(1000, 8, vocabulary, dtype)
    arguments = (*inputs.values(), 1.0, False, rng.make(8, 1), 2)
    loss, sampled, predicted, lse = native_op(*arguments)
    expected = reference.generator_head(*arguments)
    used = inputs["targets"] != -100
    assert (sampled != expected[1]).sum() <= 1
    assert (predicted != expected[2]).sum() <= 1
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse[used], expected[3][used], rtol=1e-5, atol=1e-5)


def test_slots_draw_for_themselves(backend) -> None:
    """A slot's sample does not depend on how many slots there are, nor on the others."""
    inputs = make(50, 16, 300)
    inputs["targets"] = inputs["targets"].clamp(min=0)
    every = ops.generator_head(**inputs, rng=rng.make(4)).sampled
    few = {n: x[:9] if n in ("hidden", "targets") else x for n, x in inputs.items()}
    assert torch.equal(ops.generator_head(**few, rng=rng.make(4)).sampled, every[:9])
    same = {**inputs, "hidden": inputs["hidden"][:1].expand(50, -1)}
    assert len(set(ops.generator_head(**same, rng=rng.make(4)).sampled.tolist())) > 5


def chi_square(samples: Tensor, probabilities: Tensor, least: float = 10.0) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; the rarest columns are pooled until ``least`` are expected."""
    observed = torch.bincount(samples, minlength=len(probabilities)).double()
    expected = probabilities.double() * len(samples)
    order = expected.argsort()
    rare = expected[order].cumsum(0) < least
    rare = order[: int(rare.sum()) + 1]
    kept = torch.ones(len(expected), dtype=torch.bool)
    kept[rare] = False
    observed = torch.cat([observed[kept], observed[rare].sum().view(1)])
    expected = torch.cat([expected[kept], expected[rare].sum().view(1)])
    return float(((observed - expected) ** 2 / expected).sum()), len(expected) - 1


def distribution(vocabulary: int, draws: int, temperature: float, seed: int) -> tuple[float, int]:
    """χ² of draws for one row of logits, standard normal, given by the bias."""
    logits = torch.randn(vocabulary)
    targets, counts = torch.zeros(50000, dtype=torch.int64), []
    hidden, weight = torch.zeros(len(targets), 1), torch.zeros(vocabulary, 1)
    for step in range(draws // len(targets)):
        out = ops.generator_head(hidden, weight, logits, targets, temperature=temperature, rng=rng.make(seed, step))
        counts.append(out.sampled)
    return chi_square(torch.cat(counts), torch.softmax(logits.double() / temperature, 0))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_distribution(backend, temperature) -> None:
    """χ² of 50,000 draws from 150 columns (three groups, the last short) within 4 standard deviations."""
    statistic, freedom = distribution(150, 50_000, temperature, seed=1)
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.too_long_to_emulate
def test_distribution_over_the_vocabulary(native_op) -> None:
    """χ² of a million draws at V = 30522 (fewer where the machine has no vector kernels: it would take minutes)."""
    from electra_fast import _native

    slow = _native.build_info()["capability"] == "baseline"
    statistic, freedom = distribution(30522, 100_000 if slow else 1_000_000, 1.0, seed=2)
    assert freedom > (1000 if slow else 20000)
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_reference_sample_of_degenerate_rows() -> None:
    """Columns of no weight are never drawn; a row without any gives column 0."""
    logits = torch.full((3, 130), -torch.inf)
    logits[0, 129], logits[1, 5] = 0.0, -1e4
    assert sample(logits, rng.make(0), 0).tolist() == [129, 5, 0]


def test_memory_stays_below_the_logits(native_op) -> None:
    """Forward and backward of 4096 slots × 30522 columns (500 MB of logits) raise the peak by < 100 MB."""
    script = """
import resource, torch
from electra_fast import ops, rng
torch.set_num_threads(2)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(slots):
    hidden, weight = torch.randn(slots, 16, requires_grad=True), torch.randn(30522, 16, requires_grad=True)
    bias = torch.zeros(30522, requires_grad=True)
    targets = torch.zeros(slots, dtype=torch.int64)
    ops.generator_head(hidden, weight, bias, targets, rng=rng.make(0)).loss.sum().backward()
run(64)
before = peak()
run(4096)
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 100


def test_fresh_seed_follows_the_generator(backend) -> None:
    inputs = make(60, 16, 300)
    torch.manual_seed(5)
    first, second = ops.generator_head(**inputs).sampled, ops.generator_head(**inputs).sampled
    torch.manual_seed(5)
    assert torch.equal(ops.generator_head(**inputs).sampled, first)
    assert not torch.equal(first, second)


def test_only_the_loss_carries_a_gradient(backend) -> None:
    inputs = make(6, 8, 11)
    inputs["hidden"].requires_grad_()
    out = ops.generator_head(**inputs)
    assert out.loss.requires_grad
    assert not out.sampled.requires_grad
    assert not out.predicted.requires_grad


def test_non_contiguous(backend, gradients) -> None:
    inputs = make(20, 24, 67)
    strided = {n: torch.stack([x, x], -1)[..., 0] for n, x in inputs.items()}
    strided["weight"] = inputs["weight"].t().contiguous().t()
    value, grads = gradients(loss, strided)
    expected, expected_grads = gradients(loss, inputs)
    torch.testing.assert_close(value, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


def test_gradient_with_any_strides(backend) -> None:
    inputs = make(20, 8, 30)
    inputs["hidden"].requires_grad_()
    for grad in (torch.ones(1).expand(20), torch.randn(20, 2)[:, 0]):
        (actual,) = torch.autograd.grad(loss(**inputs), inputs["hidden"], grad)
        (expected,) = torch.autograd.grad(plain(**inputs), inputs["hidden"], grad)
        torch.testing.assert_close(actual, expected)


def test_autocast(backend, gradients) -> None:
    """hidden and weight are cast, the bias stays; gradients come back in the parameters' dtypes."""
    inputs = make(20, 32, 130)
    low = {n: x.bfloat16() if n in ("hidden", "weight") else x for n, x in inputs.items()}
    expected = ops.generator_head(**low, rng=rng.make(1))
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.generator_head(**inputs, rng=rng.make(1))
        _, grads = gradients(loss, inputs)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(out.sampled, expected.sampled)
    assert out.loss.dtype == torch.float32
    assert all(grad.dtype == torch.float32 for grad in grads.values())


def test_gradcheck(backend) -> None:
    inputs = make(6, 5, 70, torch.float64)
    leaves = [inputs[name].requires_grad_() for name in ("hidden", "weight", "bias")]
    assert torch.autograd.gradcheck(
        lambda *given: ops.generator_head(*given, inputs["targets"], rng=rng.make(1)).loss, leaves, fast_mode=True
    )


def test_opcheck(native_op, native_backward, native_dtype) -> None:
    inputs = make(9, 16, 67, native_dtype)
    rest = (0.8, True, rng.make(1), 2)
    *_, lse = native_op(*inputs.values(), *rest)
    torch.library.opcheck(
        native_backward, (torch.randn(9), *inputs.values(), lse), test_utils=("test_schema", "test_faketensor")
    )
    for name in ("hidden", "weight", "bias"):
        inputs[name].requires_grad_()
    torch.library.opcheck(native_op, (*inputs.values(), *rest))


def test_compiles(backend, assert_compiles) -> None:
    assert_compiles(lambda **given: loss(**given) * 2, make(9, 16, 67))


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs = make(150, 32, 2000)  # dhidden's sum over the vocabulary takes two steps on one thread, one on two

    def run() -> list[Tensor]:
        value, grads = gradients(loss, inputs)
        out = ops.generator_head(**inputs, rng=rng.make(1))
        return [value, out.sampled, out.predicted, *grads.values()]

    assert_deterministic(run)


@pytest.mark.parametrize("target", [-1, 67, -99])
@pytest.mark.reads_values
def test_target_outside_the_vocabulary(backend, target) -> None:
    inputs = make(9, 8, 67)
    inputs["targets"][4] = target
    with pytest.raises(ValueError, match=r"generator_head.*targets"):
        ops.generator_head(**inputs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": torch.ones(8)}, ValueError, r"generator_head: hidden must have shape \[\*, \*\], got \[8\]"),
        ({"weight": torch.ones(5, 7)}, ValueError, r"generator_head: weight must have shape \[\*, 8\], got \[5, 7\]"),
        ({"weight": torch.ones(0, 8)}, ValueError, "generator_head: weight must have at least one row"),
        ({"weight": torch.ones(5, 8).bfloat16()}, TypeError, "generator_head: weight must be float32, got bfloat16"),
        ({"bias": torch.ones(4)}, ValueError, r"generator_head: bias must have shape \[5\], got \[4\]"),
        ({"targets": torch.ones(3).int()}, TypeError, "generator_head: targets must be int64, got int32"),
        ({"targets": torch.ones(2).long()}, ValueError, r"generator_head: targets must have shape \[3\], got \[2\]"),
        ({"temperature": 0.0}, ValueError, "generator_head: temperature must be greater than 0, got 0.0"),
        ({"temperature": float("nan")}, ValueError, "generator_head: temperature must be greater than 0, got nan"),
        ({"rng": torch.zeros(2)}, TypeError, "generator_head: rng must be int64, got float32"),
        ({"site": -3}, ValueError, "generator_head: site must be in"),
    ],
)
def test_errors(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.generator_head(**{**make(3, 8, 5), **change})
