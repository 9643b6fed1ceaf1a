"""An encoder in inference on the CPU runs packed, and never on parameters, parts or hooks that are out of date."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

from electra_fast import ops
from electra_fast.models import ElectraConfig
from electra_fast.nn import Encoder, packed
from electra_fast.ops import native

if native.error is not None:
    pytest.skip(native.error, allow_module_level=True)

CONFIG = ElectraConfig(
    vocab_size=50, embedding_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


@pytest.fixture
def calls(monkeypatch) -> list[torch.dtype]:
    """The products' dtype of every packed call, in order."""
    made: list[torch.dtype] = []

    def recorded(x, cu_seqlens, max_seqlen, layers):
        made.append(layers.products)
        return ops.encoder(x, cu_seqlens, max_seqlen, layers)

    monkeypatch.setattr(packed, "encoder", recorded)
    return made


X = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
CU_SEQLENS = torch.tensor([0, 3, 7], dtype=torch.int32)


def infer(encoder: Encoder, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        return encoder(x, CU_SEQLENS, 4)


def one_by_one(encoder: Encoder, x: torch.Tensor = X) -> torch.Tensor:
    with torch.enable_grad():
        return encoder(x, CU_SEQLENS, 4).detach()


def assert_current(encoder: Encoder) -> None:
    torch.testing.assert_close(infer(encoder), one_by_one(encoder), rtol=0, atol=1e-5)


def test_inference_is_packed_and_the_same(encoder, calls) -> None:
    assert_current(encoder)
    assert calls == [torch.float32]
    with torch.inference_mode():
        encoder(X, CU_SEQLENS)
    assert len(calls) == 2
    encoder.bfloat16()
    assert infer(encoder, X.bfloat16()).dtype == torch.bfloat16
    assert calls[2:] == [torch.bfloat16]


def test_packed_once(encoder, monkeypatch) -> None:
    made = []
    pack = packed.pack_layers
    monkeypatch.setattr(packed, "pack_layers", lambda *args: made.append(args) or pack(*args))
    for _ in range(3):
        infer(encoder)
    assert len(made) == 1
    packed.forget(encoder)
    infer(encoder)
    assert len(made) == 2


def change_in_place(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.layer[1].output.dense.weight.mul_(2)


def load_state(encoder: Encoder) -> None:
    encoder.load_state_dict({name: tensor + 0.1 for name, tensor in encoder.state_dict().items()})


def replace_parameter(encoder: Encoder) -> None:
    encoder.layer[0].attention.self.query.bias = nn.Parameter(torch.ones(32))


def replace_data(encoder: Encoder) -> None:
    encoder.layer[0].intermediate.dense.weight.data = torch.randn(64, 32)


def replace_part(encoder: Encoder) -> None:
    encoder.layer[1].output.LayerNorm = nn.LayerNorm(32, eps=encoder.layer[0].output.LayerNorm.eps)
    nn.init.constant_(encoder.layer[1].output.LayerNorm.weight, 3.0)


def remove_bias(encoder: Encoder) -> None:
    encoder.layer[1].attention.self.value.bias = None


def replace_forward(encoder: Encoder) -> None:
    dense = encoder.layer[0].intermediate.dense
    dense.forward = lambda x: 2 * nn.functional.linear(x, dense.weight, dense.bias)


def optimizer_step(encoder: Encoder) -> None:
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(X, CU_SEQLENS, 4).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        load_state,
        replace_parameter,
        replace_data,
        replace_part,
        replace_forward,
        remove_bias,
        optimizer_step,
    ],
    ids=lambda f: f.__name__,
)
def test_changes_are_seen(encoder, calls, change) -> None:
    before = infer(encoder)
    change(encoder)
    assert not torch.allclose(infer(encoder), before)
    assert_current(encoder)
    assert len(calls) == (1 if change is replace_forward else 3)


def test_what_is_not_plain_runs_one_by_one(encoder, calls) -> None:
    seen = []
    hook = encoder.layer[0].output.dense.register_forward_hook(lambda *_: seen.append(1))
    infer(encoder)
    assert seen
    assert not calls
    hook.remove()
    infer(encoder)
    assert len(calls) == 1
    hook = encoder.layer[1].register_forward_pre_hook(lambda *_: seen.append(1))  # after it was packed
    infer(encoder)
    assert len(seen) == 2
    assert len(calls) == 1
    hook.remove()

    hook = encoder.layer[0].output.dense.register_full_backward_hook(lambda *_: None)
    infer(encoder)
    assert len(calls) == 1
    hook.remove()
    infer(encoder)
    assert len(calls) == 2

    class Adapter(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    adapter = Adapter(32, 32)
    adapter.load_state_dict(encoder.layer[0].attention.self.value.state_dict())
    encoder.layer[0].attention.self.value = adapter
    assert_current(encoder)
    assert len(calls) == 2


def test_a_projection_is_packed_too(encoder, calls) -> None:
    """Its changes are seen, one in place of another too; a hooked one is called, once."""
    projection, other = nn.Linear(5, 32), nn.Linear(5, 32)
    x = X[:, :5]

    def infer_projected(linear: nn.Linear) -> torch.Tensor:
        with torch.no_grad():
            return encoder(x, CU_SEQLENS, 4, projection=linear)

    def assert_projected(linear: nn.Linear) -> None:
        torch.testing.assert_close(infer_projected(linear), one_by_one(encoder, linear(x)), rtol=0, atol=1e-5)

    assert_projected(projection)
    with torch.no_grad():
        projection.weight.mul_(2)
    assert_projected(projection)
    assert_projected(other)
    assert_current(encoder)  # and without one
    assert len(calls) == 4
    seen = []
    projection.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        expected = encoder(projection(x), CU_SEQLENS, 4)
    seen.clear()
    torch.testing.assert_close(infer_projected(projection), expected, rtol=0, atol=1e-5)
    assert seen == [1]
    assert len(calls) == 5


def test_where_it_cannot_be(encoder, calls) -> None:
    """Under autograd, autocast and tracing, in training, with another backend, in float64 and padded."""
    one_by_one(encoder)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            encoder(X, CU_SEQLENS, 4)
        torch.compile(encoder, backend="eager", fullgraph=True)(X, CU_SEQLENS, 4)
        encoder(X.view(1, 7, 32))
        with ops.use_backend("reference"):
            encoder(X, CU_SEQLENS, 4)
        encoder.train()(X, CU_SEQLENS, 4)
    infer(encoder.eval().double(), X.double())
    assert not calls


def test_copies_pickles_and_memory(encoder, calls) -> None:
    expected = infer(encoder)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(infer(other), expected)
        change_in_place(other)
        assert not torch.equal(infer(other), expected)
    assert torch.equal(infer(encoder), expected)
    kept = len(packed._packed)
    del encoder, other
    gc.collect()
    assert len(packed._packed) < kept
