"""What only a GPU can show of the CUDA kernels: no waiting for the host, graphs, streams, determinism of the hardware,
other devices, sizes of real batches. Small shapes, gradients and errors are tested by the other files of this folder
and by tests/ops, which run on a GPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import electra_fast
from electra_fast import ops, rng
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.ops import backend, native


def why_not() -> str | None:
    return None if torch.cuda.is_available() and native.cuda_error is None else native.cuda_error or "there is no GPU"


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
DEVICE = "cuda"


@dataclass
class Case:
    """An op on inputs of a real batch. ``function`` takes the inputs by name; its first result carries gradients."""

    function: Callable
    inputs: dict[str, Tensor]

    def run(self) -> list[Tensor]:
        """All results, and the gradients of the first with respect to every floating input."""
        leaves = {n: x.detach().requires_grad_(x.is_floating_point()) for n, x in self.inputs.items()}
        results = self.function(**leaves)
        results = [results] if isinstance(results, Tensor) else list(results)
        wanted = [x for x in leaves.values() if x.requires_grad]
        if wanted and results[0].requires_grad:
            scale = torch.linspace(-1, 1, results[0].numel(), device=DEVICE).view(results[0].shape)
            results += torch.autograd.grad(results[0], wanted, scale.to(results[0].dtype), allow_unused=True)
        return [r.detach() for r in results if r is not None]


def activations(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)


def lengths(*counts: int) -> Tensor:
    return torch.tensor([0, *counts], device=DEVICE).cumsum(0).to(torch.int32)


def gelu() -> Case:
    return Case(ops.gelu, {"x": activations(4096, 1024), "bias": torch.randn(1024, device=DEVICE)})


def layer_norm() -> Case:
    def function(rng: Tensor, **given: Tensor) -> Tensor:
        return ops.layer_norm(**given, dropout_p=0.1, rng=rng, site=3)

    inputs = {"x": activations(4096, 768), "residual": activations(4096, 768), "rng": rng.make(3, device=DEVICE)}
    return Case(function, inputs | {n: torch.randn(768, device=DEVICE) for n in ("weight", "bias", "x_bias")})


def attention(counts: tuple[int, ...]) -> Case:
    cu, longest = lengths(*counts), max(counts)

    def function(rng: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bounds = {"max_seqlen_q": longest, "max_seqlen_k": longest}
        return ops.attention(q, k, v, cu, **bounds, dropout_p=0.1, rng=rng, site=4)

    tokens = sum(counts) + 5
    return Case(function, {n: activations(tokens, 12, 64) for n in "qkv"} | {"rng": rng.make(4, device=DEVICE)})


def embedding() -> Case:
    def function(rng: Tensor, **given: Tensor) -> Tensor:
        return ops.embedding(**given, dropout_p=0.1, rng=rng, padding_idx=0, out_dtype=torch.bfloat16)

    tables = {"word": (30522, 128), "position": (512, 128), "token_type": (2, 128), "weight": (128,), "bias": (128,)}
    ids = {
        name: torch.randint(rows, (4096,), device=DEVICE)
        for name, rows in (("input_ids", 30522), ("position_ids", 512), ("token_type_ids", 2))
    }
    return Case(
        function,
        ids | {n: torch.randn(s, device=DEVICE) for n, s in tables.items()} | {"rng": rng.make(5, device=DEVICE)},
    )


def mask_tokens() -> Case:
    special, cu = torch.tensor([0, 101, 102], device=DEVICE), lengths(*[128] * 32)
    bound = ops.max_predictions_bound(4096, 32, 0.15)

    def function(rng: Tensor, input_ids: Tensor) -> tuple:
        return ops.mask_tokens(
            input_ids, cu, special, mask_id=103, probability=0.15, max_predictions=bound, rng=rng, site=1
        )

    return Case(
        function, {"input_ids": torch.randint(30522, (4096,), device=DEVICE), "rng": rng.make(6, device=DEVICE)}
    )


def generator_head(width: int) -> Case:
    targets = torch.randint(30522, (600,), device=DEVICE)
    targets[-40:] = -100

    def function(rng: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple:
        return ops.generator_head(hidden, weight, bias, targets, rng=rng, site=2)

    inputs = {"hidden": activations(600, width), "weight": activations(30522, width), "bias": activations(30522)}
    return Case(function, inputs | {"rng": rng.make(7, device=DEVICE)})


def replace_tokens() -> Case:
    positions = torch.randperm(4096, device=DEVICE)[:600]
    targets = torch.randint(30522, (600,), device=DEVICE)
    inputs = {
        "input_ids": torch.randint(30522, (4096,), device=DEVICE),
        "sampled": torch.randint(30522, (600,), device=DEVICE),
    }
    return Case(lambda input_ids, sampled: ops.replace_tokens(input_ids, positions, targets, sampled), inputs)


def discriminator_loss() -> Case:
    labels, mask = torch.rand(4096, device=DEVICE) < 0.1, torch.rand(4096, device=DEVICE) < 0.9
    inputs = {"hidden": activations(4096, 256), "weight": activations(1, 256), "bias": activations(1)}
    return Case(lambda hidden, weight, bias: ops.discriminator_loss(hidden, weight, bias, labels, mask), inputs)


CASES = {
    "gelu": gelu,
    "layer_norm": layer_norm,
    "attention-128": lambda: attention((128, 77, 0, 1, 128)),
    "attention-512": lambda: attention((512, 300, 17)),
    "attention-1500": lambda: attention((1500, 600)),
    "embedding": embedding,
    "mask_tokens": mask_tokens,
    "generator_head-128": lambda: generator_head(128),
    "generator_head-768": lambda: generator_head(768),
    "replace_tokens": replace_tokens,
    "discriminator_loss": discriminator_loss,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each op in turn, in CUDA kernels and nothing else."""
    with ops.use_backend("native"):
        yield CASES[request.param]()


def assert_equal(actual: list[Tensor], expected: list[Tensor], what: str) -> None:
    assert len(actual) == len(expected)
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), f"{what}: result {i} differs"


def test_same_bits_in_a_hundred_runs(case) -> None:
    expected = case.run()
    for run in range(100):
        assert_equal(case.run(), expected, f"run {run}")


def test_never_waits_for_the_host(case) -> None:
    case.run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_in_a_graph(case) -> None:
    """Forward and backward are captured once and replayed on other inputs and another step of the random numbers."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            case.run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.run()
    for name, x in case.inputs.items():
        if name == "rng":
            rng.advance_(x)
        elif x.is_floating_point():
            x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    assert_equal(captured, case.run(), "replay")


def test_on_the_current_stream(case) -> None:
    """What is written late on a stream is read by an op on that stream."""
    expected, late = case.run(), {n: x.clone() for n, x in case.inputs.items()}
    for x in case.inputs.values():
        x.zero_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # about 50 ms
        for name, x in case.inputs.items():
            x.copy_(late[name])
        actual = case.run()
    stream.synchronize()
    assert_equal(actual, expected, "on a stream")


def test_on_another_device(case) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    expected = case.run()
    with torch.cuda.device(1):  # the tensors stay on device 0
        assert_equal(case.run(), expected, "with another current device")


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(name) -> None:
    """At the size of a real batch: not further from the reference in float32 than twice the reference in bfloat16."""
    case = CASES[name]()
    with ops.use_backend("native"):
        ours = case.run()
    with ops.use_backend("reference"):
        plain = case.run()
        case.inputs = {n: x.float() if x.is_floating_point() else x for n, x in case.inputs.items()}
        truth = case.run()
    for i, (a, b, t) in enumerate(zip(ours, plain, truth, strict=True)):
        assert a.shape == t.shape
        if not t.is_floating_point():
            assert (a != t).float().mean() < 5e-3, f"result {i}"  # samples may differ where roundings do
            continue
        seen = t.isfinite()
        scale = t[seen].abs().max().item() if seen.any() else 0.0
        error, plain_error = ((x.double() - t.double())[seen].abs().max().item() for x in (a, b))
        rounding = max(torch.finfo(a.dtype).eps, 2e-4) * scale  # of sums over thousands of rows, in float32
        assert error <= 2 * plain_error + rounding, f"result {i}: {error}, in plain PyTorch {plain_error}"


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name, monkeypatch) -> None:
    """Schema, fake and autograd of the op as torch sees it, on CUDA tensors."""
    called, run = [], backend.run

    def record(op: str, args: tuple, *rest):
        called.append((op, args))
        return run(op, args, *rest)

    monkeypatch.setattr(backend, "run", record)
    case = CASES[name]()
    with ops.use_backend("native"):
        case.function(**{n: x.requires_grad_(x.is_floating_point()) for n, x in case.inputs.items()})
    op, args = called[0]
    torch.library.opcheck(getattr(torch.ops.electra_fast, native.FUNCTIONS[op]).default, args)


def test_adam() -> None:
    """In place, on many tensors at once, as the reference does it, the same bits in every run."""
    shapes = [(30522, 128), (256, 1024), (1024,), (1,)] * 3
    results = {}
    for name in ("reference", "native", "native"):
        torch.manual_seed(0)
        lists = [[torch.rand(s, device=DEVICE) for s in shapes] for _ in range(4)]
        scalars = {n: torch.tensor(v, device=DEVICE) for n, v in (("learning_rate", 1e-3), ("grad_scale", 0.5))}
        with ops.use_backend(name):
            ops.adam_(*lists, weight_decay=[0.01, 0.0, 0.01] * 4, **scalars)
        if name in results:
            assert_equal([*lists[0], *lists[2], *lists[3]], results[name], "second run")
        results[name] = [*lists[0], *lists[2], *lists[3]]
    for a, b in zip(results["native"], results["reference"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_tensors_on_two_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="gelu: bias must be on the device of x"):
        torch.ops.electra_fast.gelu(activations(4, 8), torch.ones(8).bfloat16())


@pytest.mark.parametrize("size", ["small", "base"])
def test_pretraining_step(size) -> None:
    """Loss and gradients of a whole step in CUDA kernels against the reference, with the same random numbers."""
    config = getattr(ElectraConfig, size)(
        num_hidden_layers=2, pad_token_id=0, cls_token_id=101, sep_token_id=102, mask_token_id=103
    )
    torch.manual_seed(0)
    pair = ElectraPretrainingPair(config).to(DEVICE)
    counts = (128, 128, 77, 3, 110)
    ids = torch.randint(1000, 30000, (sum(counts),), device=DEVICE)
    results = {}
    for name in ("native", "reference"):
        pair.zero_grad()
        with (
            electra_fast.use_backend(name, ops=[op for op in ops.OPS if op != "adam"]),
            torch.autocast(DEVICE, torch.bfloat16),
        ):
            out = pair(ids, cu_seqlens=lengths(*counts), rng=rng.make(9, device=DEVICE), max_seqlen=128)
            out.loss.backward()
        norm = torch.stack([p.grad.double().norm() for p in pair.parameters() if p.grad is not None]).norm()
        results[name] = (out.loss.item(), norm.item(), out)
    (loss, norm, out), (expected_loss, expected_norm, expected) = results["native"], results["reference"]
    assert torch.equal(out.positions, expected.positions)
    assert (out.sampled == expected.sampled).float().mean() > 0.95
    assert loss == pytest.approx(expected_loss, rel=1e-2)
    assert norm == pytest.approx(expected_norm, rel=3e-2)
