"""ElectraAdam against closed forms, the reference and torch's bookkeeping; schedule and clipping against formulas."""

import copy
import math

import pytest
import torch
from torch import nn

import electra_fast.reference as reference
from electra_fast.ops import backend
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, parameter_groups, polynomial_schedule


def parameters(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    for p in values:
        p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
    return values


@pytest.mark.parametrize(("t", "ratio"), [(1, 3.162), (10, 6.527), (100, 3.243), (1000, 1.2578)])
def test_constant_gradients_move_further_than_with_bias_correction(t, ratio):
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = ElectraAdam([p], lr=1.0, weight_decay=0.0)
    corrected = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    usual = torch.optim.Adam([corrected], lr=1.0, eps=1e-12)
    for _ in range(t):
        before = p.item(), corrected.item()
        p.grad, corrected.grad = torch.ones_like(p), torch.ones_like(corrected)
        optimizer.step()
        usual.step()
    moved = [before[0] - p.item(), before[1] - corrected.item()]
    assert moved[0] / moved[1] == pytest.approx(ratio, rel=1e-3)
    closed = (1 - 0.9**t) / (math.sqrt(1 - 0.999**t) + 1e-6)
    assert moved[0] == pytest.approx(closed, rel=1e-6)


def test_eps_is_outside_the_root():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    p.grad = torch.full_like(p, 1e-9)
    ElectraAdam([p], lr=1.0, weight_decay=0.0).step()
    assert -p.item() == pytest.approx(1e-10 / (math.sqrt(1e-3) * 1e-9 + 1e-6), rel=1e-6)


def test_decay_is_decoupled_and_times_the_learning_rate():
    p = nn.Parameter(torch.full((2,), 3.0, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    ElectraAdam([p], lr=0.5, weight_decay=0.1).step()
    assert p.tolist() == pytest.approx([3.0 - 0.5 * 0.1 * 3.0] * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_backend_equals_the_reference(dtype):
    shapes = [(7,), (3, 5), (), (129, 64), (1,), (4096, 33)]
    ours, truth = parameters(*shapes, dtype=dtype), parameters(*shapes, dtype=dtype)
    optimizer = ElectraAdam([{"params": ours[:3], "weight_decay": 0.0}, {"params": ours[3:]}], lr=3e-3)
    m, v = ([torch.zeros_like(p) for p in truth] for _ in range(2))
    for step in range(4):
        for a, b in zip(ours, truth, strict=True):
            a.grad = b.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step), dtype=dtype)
        scale = torch.tensor(0.25 + step, dtype=dtype)
        versions = [p._version for p in ours]
        optimizer.step(grad_scale=scale)
        assert all(p._version > version for p, version in zip(ours, versions, strict=True))
        decay = [0.0] * 3 + [0.01] * 3
        rate = torch.tensor(3e-3, dtype=dtype)
        reference.adam_(truth, [p.grad for p in truth], m, v, decay, rate, scale, 0.9, 0.999, 1e-6)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-7)


def test_one_call_updates_all_groups_of_one_learning_rate(monkeypatch):
    calls = []
    run = backend.run
    monkeypatch.setattr(backend, "run", lambda op, args, *rest: (calls.append(len(args[0])), run(op, args, *rest)))
    ps = parameters(3, 4, 5)
    lr = torch.tensor(0.1)
    optimizer = ElectraAdam([{"params": ps[:1], "weight_decay": 0.0}, {"params": ps[1:]}], lr=lr)
    optimizer.step()
    assert calls == [3]
    optimizer.param_groups[0]["lr"] = 0.2  # layer-wise rates: one call for each
    optimizer.step()
    assert sorted(calls[1:]) == [1, 2]


def test_learning_rate_follows_the_group_between_steps():
    for tensor in (False, True):
        p = nn.Parameter(torch.zeros(1))
        optimizer = ElectraAdam([p], lr=torch.tensor(0.0) if tensor else 0.0, weight_decay=0.0)
        p.grad = torch.ones(1)
        optimizer.step()
        assert p.item() == 0.0
        assert optimizer.state[p]["exp_avg"].item() == pytest.approx(0.1)
        if tensor:
            optimizer.param_groups[0]["lr"].fill_(1.0)
        else:
            optimizer.param_groups[0]["lr"] = 1.0
        optimizer.step()
        assert -p.item() == pytest.approx(0.19 / (math.sqrt(1.999e-3) + 1e-6), rel=1e-4)


def test_parameters_without_gradient_are_left_alone():
    a, b = parameters(3, 3)
    b.grad = None
    kept = b.detach().clone()
    optimizer = ElectraAdam([a, b], lr=0.1)
    optimizer.step()
    assert torch.equal(b, kept)
    assert len(optimizer.gradients()) == 1
    b.grad = torch.ones(3)
    optimizer.step()
    assert not torch.equal(b, kept)


def test_closure_is_evaluated_with_gradients():
    p = nn.Parameter(torch.ones(2))
    optimizer = ElectraAdam([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert (p < 1).all()


@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
def test_continues_to_the_bit_after_saving_and_loading(how, tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    optimizer = ElectraAdam(parameter_groups(model), lr=torch.tensor(1e-2))

    def steps(model, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            model(torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
            optimizer.step()

    steps(model, optimizer, range(3))
    if how == "state_dict":
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        other = copy.deepcopy(model)
        resumed = ElectraAdam(parameter_groups(other), lr=torch.tensor(5.0))
        steps(other, resumed, [9])  # moments that loading must replace
        other.load_state_dict(saved["model"])
        resumed.load_state_dict(saved["optimizer"])
    else:
        other, resumed = copy.deepcopy((model, optimizer))
    steps(model, optimizer, range(3, 6))
    steps(other, resumed, range(3, 6))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameter_groups_decay_by_name_and_list_shared_parameters_once():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.word_embeddings = nn.Embedding(10, 4)
            self.LayerNorm = nn.LayerNorm(4)
            self.layer_norm = nn.LayerNorm(4)
            self.dense = nn.Linear(4, 4)
            self.output_bias = nn.Parameter(torch.zeros(10))
            self.decoder = nn.Linear(4, 10, bias=False)
            self.decoder.weight = self.word_embeddings.weight
            self.frozen = nn.Linear(4, 4).requires_grad_(False)

    block = Block()
    decayed, rest = parameter_groups(block, 0.02)
    assert decayed["weight_decay"] == 0.02
    assert rest["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(block.word_embeddings.weight), id(block.dense.weight)]
    assert len(rest["params"]) == 6


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 5e-8 * (1 - 1e-6)), (5_000, 2.5e-4 * 0.995), (10_000, 4.95e-4), (500_000, 2.5e-4), (1_000_000, 0.0)],
)
def test_schedule_decays_and_warms_up_at_once(step, expected):
    assert polynomial_schedule(step, 5e-4, 10_000, 1_000_000) == pytest.approx(expected, rel=1e-9)


def test_schedule_edges():
    assert polynomial_schedule(0, 1.0, 0, 10) == 1.0
    assert polynomial_schedule(5, 1.0, 0, 10, power=2.0) == 0.25
    assert polynomial_schedule(11, 1.0, 0, 10) == 0.0


def test_clipping_bounds_the_global_norm():
    ps = parameters((30, 20), 7, ())
    grads = [p.grad for p in ps]
    norm = global_norm(grads)
    assert norm.item() == pytest.approx(torch.cat([g.flatten() for g in grads]).norm().item(), rel=1e-6)
    assert clip_factor(norm, 1.0).item() == pytest.approx(1.0 / norm.item(), rel=1e-6)
    assert clip_factor(torch.tensor(0.5), 1.0).item() == 1.0
    assert clip_factor(torch.tensor(math.nan), 1.0).isnan()


def test_clipped_step_equals_scaling_the_gradients_first():
    a, b = parameters((8, 8)), parameters((8, 8))
    factor = clip_factor(global_norm([a[0].grad]), 1.0)
    ElectraAdam(a, lr=0.1).step(grad_scale=factor)
    b[0].grad.mul_(factor)
    ElectraAdam(b, lr=0.1).step()
    torch.testing.assert_close(a[0], b[0])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"lr": -1.0}, "lr"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_hyperparameters_out_of_range(arguments, word):
    with pytest.raises(ValueError, match=f"ElectraAdam: {word} must be"):
        ElectraAdam(parameters(2), **arguments)


@pytest.mark.parametrize("name", ["lr", "grad_scale"])
def test_scalars_on_another_device_are_refused(name):
    """The kernel reads them through a pointer."""
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    elsewhere = torch.ones((), device="meta")
    optimizer = ElectraAdam([p], lr=elsewhere if name == "lr" else 1e-3)
    with pytest.raises(ValueError, match=f"{name} must be on cpu like the parameters, got meta"):
        optimizer.step(grad_scale=elsewhere if name == "grad_scale" else None)


def test_low_precision_parameters_are_refused():
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.bfloat16.*autocast"):
        ElectraAdam(parameters(2, dtype=torch.bfloat16))


def test_parameters_and_gradients_of_other_layouts():
    with pytest.raises(ValueError, match=r"must be contiguous, got strides \(1, 3\)"):
        ElectraAdam([nn.Parameter(torch.zeros(2, 3).t())])
    a, b = parameters((4, 6)), parameters((4, 6))
    a[0].grad = a[0].grad.t().contiguous().t()
    ElectraAdam(a, lr=0.1).step()
    ElectraAdam(b, lr=0.1).step()
    assert torch.equal(a[0], b[0])


def test_no_gradients_at_all():
    (p,) = parameters(3)
    p.grad = None
    kept = p.detach().clone()
    ElectraAdam([p]).step()
    assert torch.equal(p, kept)
