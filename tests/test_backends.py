"""The choice of backend: the table of reasons, forcing, and what is told."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

import electra_fast
from electra_fast import ops, reference
from electra_fast.ops import backend, native
from electra_fast.triton import registration


@pytest.fixture
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_warned", set())


@pytest.fixture
def _without_native(monkeypatch: pytest.MonkeyPatch, _nothing_told: None) -> None:
    monkeypatch.setattr(native, "error", "electra_fast._C is not built")


def test_table_names_every_op_and_backend() -> None:
    table = electra_fast.backends()
    assert tuple(table) == ops.OPS
    assert len(ops.OPS) == 9
    for reasons in table.values():
        assert tuple(reasons) == ops.BACKENDS == ("native", "triton", "reference")
        assert reasons["reference"] is None
        assert reasons["triton"] == registration.missing("gelu", "cpu", (torch.float32,))


def test_every_op_is_native_on_the_cpu() -> None:
    if native.error is not None:
        pytest.skip(native.error)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        reasons = {op: reasons["native"] for op, reasons in ops.backends("cpu", dtype).items()}
        if dtype == torch.bfloat16:
            assert reasons.pop("adam").startswith(
                "native adam on CPU takes parameters and averages of one dtype, float32 or "
            )
        assert not any(reasons.values()), reasons


def test_reasons_of_the_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "error", None)
    monkeypatch.setattr(native, "cuda_error", None)
    monkeypatch.setattr(native, "_devices", {"gelu": frozenset({"cpu"})})
    assert ops.backends("cuda")["gelu"]["native"] == "the native library has no kernel of gelu for device cuda"
    assert ops.backends("cpu")["adam"]["native"] == "the native library has no kernel of adam"
    assert ops.backends("cpu", torch.float16)["gelu"]["native"] == (
        "native kernels on CPU take float32, bfloat16 and float64, not float16"
    )
    assert ops.backends("cpu", torch.int64)["gelu"]["native"] is None
    assert native.missing("gelu", None, ()) is None


def test_reasons_of_the_cuda_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which dtypes each op takes on CUDA, when all kernels are there."""
    monkeypatch.setattr(native, "error", None)
    monkeypatch.setattr(native, "cuda_error", None)
    monkeypatch.setattr(native, "_devices", {op: frozenset({"cpu", "cuda"}) for op in ops.OPS})
    why_not = {
        dtype: {op: reasons["native"] for op, reasons in ops.backends("cuda", dtype).items() if reasons["native"]}
        for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    }
    adam = "native adam on CUDA takes parameters and averages of one dtype, float32"
    assert why_not[torch.bfloat16] == why_not[torch.float16] == {"adam": adam}
    assert why_not[torch.float32] == {
        op: f"native {op} on CUDA takes bfloat16 and float16, not float32" for op in ("attention", "generator_head")
    }
    float64 = "native kernels on CUDA take float32, bfloat16 and float16, not float64"
    assert why_not[torch.float64]["gelu"] == why_not[torch.float64]["layer_norm"] == float64
    assert why_not[torch.float64]["adam"] == adam


def test_why_the_cuda_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "error", None)
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert native._load_cuda() == f"torch {torch.__version__} is built without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reason = native._load_cuda()
    assert reason == (
        "electra_fast._C_cuda is not built: install the package with `pip install .` where nvcc of CUDA 13 is"
    )
    monkeypatch.setattr(native, "cuda_error", reason)
    assert {reasons["native"] for reasons in ops.backends("cuda").values()} == {reason}
    monkeypatch.setattr(native, "error", "electra_fast._C is not built")
    assert native._load_cuda() == "electra_fast._C is not built"


@pytest.mark.usefixtures("_without_native")
def test_a_missing_library_is_the_reason() -> None:
    assert all(reasons["native"] == "electra_fast._C is not built" for reasons in ops.backends().values())
    x = torch.randn(5)
    with pytest.warns(
        UserWarning, match=r"gelu runs in plain PyTorch on cpu, slowly \(native: .* is not built; triton: "
    ):
        y = ops.gelu(x)
    assert torch.equal(y, reference.gelu(x, None))
    with pytest.raises(RuntimeError, match=r"use_backend: native cannot run attention: electra_fast._C is not built"):
        with ops.use_backend("native"):
            pass


@pytest.mark.usefixtures("_without_native")
def test_told_once_for_each_cause() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            ops.gelu(torch.randn(5))
            ops.layer_norm(torch.randn(2, 5), torch.ones(5), torch.zeros(5))
    assert len(told) == 1


@pytest.mark.usefixtures("_nothing_told")
def test_a_forced_reference_is_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ops.use_backend("reference"):
            ops.gelu(torch.randn(5))


def test_float16_runs_in_the_reference() -> None:
    x = torch.randn(5, dtype=torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(ops.gelu(x), reference.gelu(x, None))


def test_use_backend_forces_and_restores() -> None:
    calls = []

    def spy(x, bias):
        calls.append(x)
        return x

    device = torch.device("cpu")
    before = backend.choose("gelu", device, torch.float32)
    with ops.use_backend("reference"):
        assert {backend.choose(op, device, torch.float32) for op in ops.OPS} == {"reference"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(backend._TABLE["reference"].implementations, "gelu", spy)
            ops.gelu(torch.ones(2))
    assert len(calls) == 1
    assert backend.choose("gelu", device, torch.float32) == before


def test_use_backend_for_some_ops_and_nested() -> None:
    device, free = torch.device("cpu"), backend.choose("gelu", torch.device("cpu"), torch.float32)
    with ops.use_backend("reference", ops=["attention"]):
        assert backend.choose("attention", device, torch.float32) == "reference"
        assert backend.choose("gelu", device, torch.float32) == free
        with ops.use_backend("reference", ops=["gelu"]):
            assert backend.choose("gelu", device, torch.float32) == "reference"
            assert backend.choose("attention", device, torch.float32) == "reference"
        assert backend.choose("gelu", device, torch.float32) == free
        assert backend.choose("attention", device, torch.float32) == "reference"


def test_use_backend_restores_after_an_error() -> None:
    free = backend.choose("gelu", torch.device("cpu"), torch.float32)
    with pytest.raises(KeyError), ops.use_backend("reference"):
        raise KeyError
    assert backend.choose("gelu", torch.device("cpu"), torch.float32) == free


def test_use_backend_recompiles() -> None:
    """A compiled function follows the choice made outside of it."""
    if native.error is not None:
        pytest.skip(native.error)
    torch._dynamo.reset()
    graphs = []

    def record(graph: torch.fx.GraphModule, _) -> torch.fx.GraphModule:
        graphs.append(any("electra_fast" in str(node.target) for node in graph.graph.nodes))
        return graph

    compiled, x = torch.compile(lambda x: ops.gelu(x), fullgraph=True, backend=record), torch.randn(5)
    compiled(x)
    with ops.use_backend("reference"):
        compiled(x)
    compiled(x)
    assert graphs == [True, False]


@pytest.mark.parametrize(
    ("name", "chosen", "error", "message"),
    [
        ("cuda", None, ValueError, "use_backend: name must be one of native, triton, reference, got 'cuda'"),
        ("reference", ["gelu", "softmax"], ValueError, r"use_backend: ops must be among attention, .*, got 'softmax'"),
    ],
)
def test_use_backend_errors(name, chosen, error, message) -> None:
    with pytest.raises(error, match=message), ops.use_backend(name, ops=chosen):
        pass


def test_reasons_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "error", None)
    monkeypatch.setattr(registration, "_DEVICES", ("cuda",))
    assert ops.backends("cuda", torch.float16)["gelu"]["triton"] is None
    assert ops.backends("cuda", torch.float64)["gelu"]["triton"] == (
        "triton kernels take float32, bfloat16 and float16, not float64"
    )
    assert ops.backends("cpu")["gelu"]["triton"] == (
        "triton kernels run on GPUs, not on cpu (for tests: TRITON_INTERPRET=1)"
    )
    monkeypatch.setattr(registration, "error", "triton is not installed")
    assert ops.backends("cuda")["gelu"]["triton"] == "triton is not installed"
    with pytest.raises(RuntimeError, match="use_backend: triton cannot run attention: triton is not installed"):
        with ops.use_backend("triton"):
            pass


def test_triton_ops_have_the_native_schemas() -> None:
    """And triton itself is not imported by any of this."""
    if native.error is not None:
        pytest.skip(native.error)
    for name, schema in registration.SCHEMAS.items():
        given = torch._C.parse_schema(name + schema)
        wanted = getattr(torch.ops.electra_fast, name).default._schema
        assert str(given).removeprefix(name) == str(wanted).removeprefix(f"electra_fast::{name}")
    assert registration.OPERATIONS == ops.OPS
    script = "import electra_fast.ops, sys; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_forced_on_tensors_it_does_not_serve() -> None:
    if native.error is not None:
        pytest.skip(native.error)
    with ops.use_backend("native", ops=["gelu"]):
        with pytest.raises(RuntimeError, match=r"gelu: backend native was asked for and cannot run: .* not float16"):
            ops.gelu(torch.ones(3, dtype=torch.float16))


def test_native_has_no_second_derivative() -> None:
    """It says so, eager and as the registered op, rather than leave it out; the reference has one."""
    if native.error is not None:
        pytest.skip(native.error)
    x = torch.randn(5, requires_grad=True)
    for gelu in (ops.gelu, lambda x: torch.ops.electra_fast.gelu(x, None)):
        with pytest.raises(RuntimeError, match="gelu: native kernels have no second derivative"):
            torch.autograd.grad(gelu(x).sum(), x, create_graph=True)
    with ops.use_backend("reference"):
        assert torch.autograd.gradgradcheck(ops.gelu, (x.double().detach().requires_grad_(),))


def test_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    broken = tmp_path / "_C.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: type("Spec", (), {"origin": str(broken)}))
    reason = native._load("_C")
    assert reason.startswith(f"{broken} could not be loaded: ")
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    assert native._load("_C").startswith("electra_fast._C is not built: ")


def test_import_without_the_library() -> None:
    """The whole package of ops imports and runs where the library is missing; no fake is registered for absent ops."""
    script = """
import importlib.util, warnings
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "electra_fast._C" else find(name, package)
warnings.simplefilter("ignore")
import torch
from electra_fast import ops
assert ops.backends()["gelu"]["native"].startswith("electra_fast._C is not built"), ops.backends()["gelu"]
x = torch.randn(4, requires_grad=True)
ops.gelu(x).sum().backward()
print(x.grad.shape[0])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "4"
