"""The Triton ops as torch sees them: opcheck, torch.compile, autocast, fake tensors, and what is told."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from electra_fast import ops
from electra_fast.triton import configurations, registration


def test_opcheck(device) -> None:
    x, bias = torch.randn(5, 24, device=device, requires_grad=True), torch.randn(24, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.electra_fast_triton.gelu.default, (x, bias))
    torch.library.opcheck(torch.ops.electra_fast_triton.gelu.default, (x, None))
    torch.library.opcheck(
        torch.ops.electra_fast_triton.gelu_backward.default,
        (x.detach(), x.detach(), bias.detach()),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compiles(device, triton_backend) -> None:
    """Traced without a graph break, forward and backward, and with the kernels inside."""
    torch._dynamo.reset()
    x, bias = torch.randn(6, 16, device=device, requires_grad=True), torch.randn(16, device=device, requires_grad=True)

    def function(x, bias):
        return (ops.gelu(x * 2, bias) + 1).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected, actual = function(x, bias), compiled(x, bias)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(loss, (x, bias)) for loss in (expected, actual)]
    torch.testing.assert_close(gradients[1], gradients[0])
    assert "electra_fast_triton" in str(torch._dynamo.export(function)(x, bias).graph_module.graph)


def test_fake_tensors(triton_backend) -> None:
    with FakeTensorMode():
        y = ops.gelu(torch.empty(3, 5, device=registration._DEVICES[0], dtype=torch.float16))
    assert y.shape == (3, 5)
    assert y.dtype == torch.float16


def test_runs_outside_autocast(device, triton_backend) -> None:
    x = torch.randn(4, 8, device=device)
    expected = ops.gelu(x)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(ops.gelu(x), expected)


def test_no_second_derivative(device, triton_backend) -> None:
    x = torch.randn(5, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="gelu: triton kernels have no second derivative"):
        torch.autograd.grad(ops.gelu(x).sum(), x, create_graph=True)


def test_what_it_does_not_serve(device, triton_backend) -> None:
    with pytest.raises(RuntimeError, match=r"gelu: backend triton was asked for and cannot run: .* not float64"):
        ops.gelu(torch.ones(3, dtype=torch.float64, device=device))


def test_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that share limits share configurations; a device unknown to the table takes the portable ones."""
    gpu = torch.device("cuda", 0)

    def of(capability: tuple[int, int]) -> str:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        configurations.architecture.cache_clear()
        return configurations.architecture(gpu)

    monkeypatch.setattr(torch.version, "hip", None)
    names = {of(c) for c in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (7, 5))}
    assert names == {"sm_80", "sm_86", "sm_90", "any"}
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert of((9, 4)) == "gfx942"
    configurations.architecture.cache_clear()
    assert configurations.architecture(torch.device("cpu")) == "any"


def test_configurations_by_architecture_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most particular entry wins."""
    cpu = torch.device("cpu")
    entries = {
        ("x", "any", "any"): configurations.Configuration("portable", 1),
        ("x", "any", "wide"): configurations.Configuration("wide rows", 2),
        ("x", "sm_90", "any"): configurations.Configuration("Hopper", 3),
        ("x", "sm_90", "wide"): configurations.Configuration("both", 4),
    }
    monkeypatch.setattr(configurations, "TABLE", entries)

    def block_m(architecture: str, shape: str) -> int:
        monkeypatch.setattr(configurations, "architecture", lambda device: architecture)
        configurations.configuration.cache_clear()
        return configurations.configuration("x", cpu, shape).block_m

    assert [block_m(a, s) for a in ("any", "sm_90") for s in ("any", "wide")] == [1, 2, 3, 4]
    with pytest.raises(KeyError, match="no launch configuration of y for sm_90 and shapes 'any'"):
        configurations.configuration("y", cpu)
    configurations.configuration.cache_clear()


def test_every_configuration_has_a_reason() -> None:
    for key, entry in configurations.TABLE.items():
        assert entry.reason, key
        assert key[1] in (*configurations.ARCHITECTURES, "any"), key
        for size in (entry.block_m, entry.block_n, entry.block_k, entry.num_warps):
            assert size > 0, key
            assert size & (size - 1) == 0, key
