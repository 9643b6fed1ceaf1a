"""Each op as torch sees it: compiled without a graph break, and called without the dispatcher only where none looks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from electra_fast import ops, rng
from electra_fast.triton import registration

ROWS, WIDTH = 12, 16


def calls(device: str) -> dict[str, tuple[Callable, list[Tensor]]]:
    """Op -> a function of the tensors that have gradients, with the rest of the op's arguments, and these tensors."""
    ids = torch.randint(9, (ROWS,), device=device)
    cu_seqlens = torch.tensor([0, 7, 7, 10], dtype=torch.int32, device=device)
    flags, special = torch.rand(ROWS, device=device) < 0.5, torch.tensor([0, 1], device=device)
    state = rng.make(3, 1, device)
    drop = {"dropout_p": 0.2, "rng": state, "site": 2}
    positions = torch.arange(4, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    return {
        "attention": (lambda q, k, v: ops.attention(q, k, v, cu_seqlens, **drop), [normal(ROWS, 1, 16)] * 3),
        "layer_norm": (
            lambda x, residual, weight, bias: ops.layer_norm(x, weight, bias, residual=residual, **drop),
            [normal(ROWS, WIDTH), normal(ROWS, WIDTH), normal(WIDTH), normal(WIDTH)],
        ),
        "gelu": (ops.gelu, [normal(ROWS, WIDTH), normal(WIDTH)]),
        "embedding": (
            lambda *parameters: ops.embedding(ids, ids, ids, *parameters, **drop),
            [*(normal(9, WIDTH) for _ in range(3)), normal(WIDTH), normal(WIDTH)],
        ),
        "mask_tokens": (
            lambda: (
                ops.mask_tokens(
                    ids, cu_seqlens, special, mask_id=8, probability=0.3, max_predictions=6, rng=state, site=1
                ).input_ids
            ),
            [],
        ),
        "generator_head": (
            lambda hidden, weight, bias: ops.generator_head(hidden, weight, bias, ids, rng=state, site=4).loss,
            [normal(ROWS, WIDTH), normal(20, WIDTH), normal(20)],
        ),
        "replace_tokens": (lambda: ops.replace_tokens(ids, positions, ids[:4], ids[4:8])[0], []),
        "discriminator_loss": (
            lambda hidden, weight, bias: ops.discriminator_loss(hidden, weight, bias, flags)[0],
            [normal(ROWS, WIDTH), normal(1, WIDTH), normal(1)],
        ),
    }


OPS = tuple(op for op in registration.OPERATIONS if op != "adam")  # which updates in place, outside compiled graphs


@pytest.fixture(autouse=True)
def _backend(triton_backend: None) -> None:
    torch._dynamo.reset()


class Seen(TorchDispatchMode):
    """Notes the names of the ops that reach torch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_every_op_is_here(device) -> None:
    assert set(calls(device)) == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_compiles_without_a_graph_break(op, device) -> None:
    """Forward and backward traced with fake tensors, run by the same kernels: equal to the last bit."""
    function, tensors = calls(device)[op]
    expected = results(function, tensors)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for actual, wanted in zip(results(compiled, tensors), expected, strict=True):
        assert torch.equal(actual, wanted)


def results(function: Callable, tensors: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of its sum."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    return [out.detach(), *(torch.autograd.grad(out.sum(), leaves) if leaves else ())]


@pytest.mark.parametrize("op", OPS)
def test_one_op_in_the_graph(op, device) -> None:
    function, tensors = calls(device)[op]
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch.compile(function, fullgraph=True, backend=keep)(*tensors)
    targets = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert targets.count(f"electra_fast_triton.{op}.default") == 1


@pytest.mark.parametrize("op", OPS)
def test_modes_see_the_op(op, device) -> None:
    function, tensors = calls(device)[op]
    leaves = [x.clone().requires_grad_() for x in tensors]
    with Seen() as seen:
        out = function(*leaves)
        if leaves:
            torch.autograd.grad(out.sum(), leaves)
    assert f"electra_fast_triton.{op}.default" in seen.names
    if leaves:
        assert f"electra_fast_triton.{op}_backward.default" in seen.names
    assert torch.equal(out, function(*tensors))


def test_the_profiler_sees_the_op(device) -> None:
    x = torch.randn(3, 8, device=device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ops.gelu(x)
    assert "electra_fast_triton::gelu" in {event.key for event in profile.key_averages()}


def test_subclasses_see_the_op(device) -> None:
    class Wrapped(Tensor):
        seen: list[str] = []  # noqa: RUF012

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.randn(3, 8, device=device)
    out = ops.gelu(x.as_subclass(Wrapped))
    assert "electra_fast_triton.gelu.default" in Wrapped.seen
    assert torch.equal(out.as_subclass(Tensor), ops.gelu(x))


@pytest.mark.parametrize("grad", [False, True])
def test_plain_tensors_pass_the_dispatcher_by(grad, device, monkeypatch) -> None:
    """In eager mode the launcher is called at once, forward and backward."""
    import electra_fast.registration

    asked = []
    undispatched = electra_fast.registration._PLAIN

    class Noted(set):
        def issuperset(self, kinds) -> bool:
            kinds = list(kinds)
            asked.append(super().issuperset(kinds))
            return asked[-1]

    monkeypatch.setattr(electra_fast.registration, "_PLAIN", Noted(undispatched))
    for op in OPS:
        function, tensors = calls(device)[op]
        asked.clear()
        with torch.set_grad_enabled(grad):
            results(function, tensors) if grad else function(*tensors)
        assert asked == [True] * (2 if grad and tensors else 1), op


def test_transforms_are_told_what_they_cannot_have(device) -> None:
    with pytest.raises(RuntimeError, match=r"setup_context|functorch transforms"):
        torch.func.grad(lambda x: ops.gelu(x).sum())(torch.randn(4, device=device))
