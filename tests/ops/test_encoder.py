"""encoder: all layers in one call equal the layers one by one, in each precision and on any shape."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from electra_fast import ops, reference
from electra_fast.ops import native
from electra_fast.ops.encoder import LayerParameters

if native.error is not None:
    pytest.skip(native.error, allow_module_level=True)

HAS_INT8 = ops.encoder_missing("cpu", torch.bfloat16, torch.int8) is None
PRODUCTS = [torch.float32, torch.bfloat16, *([torch.int8] if HAS_INT8 else [])]


def make_layers(count: int, hidden: int, intermediate: int, *, dtype=torch.float32, biases: bool = True, seed: int = 0):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int, scale: float = 1.0, around: float = 0.0) -> Tensor:
        return (torch.randn(*shape, generator=g) * scale + around).to(dtype)

    def bias(size: int) -> Tensor | None:
        return randn(size, scale=0.3) if biases else None

    return [
        LayerParameters(
            randn(3 * hidden, hidden, scale=hidden**-0.5), bias(3 * hidden),
            randn(hidden, hidden, scale=hidden**-0.5), bias(hidden), randn(hidden, scale=0.1, around=1), randn(hidden),
            randn(intermediate, hidden, scale=hidden**-0.5), bias(intermediate),
            randn(hidden, intermediate, scale=intermediate**-0.5), bias(hidden),
            randn(hidden, scale=0.1, around=1), randn(hidden),
        )
        for _ in range(count)
    ]  # fmt: skip


def make_input(lengths: list[int], hidden: int, *, padding: int = 0, dtype=torch.float32, seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return torch.randn(sum(lengths) + padding, hidden, generator=g).to(dtype), cu_seqlens, max([1, *lengths])


def truth(x: Tensor, cu_seqlens: Tensor, longest: int, layers, heads: int, **options) -> Tensor:
    doubled = [[None if t is None else t.double() for t in layer] for layer in layers]
    return reference.encoder(x.double(), cu_seqlens, longest, doubled, heads, 1e-12, **options)


SHAPES = [  # hidden, intermediate, heads
    (32, 48, 2),
    (256, 1024, 4),
    (40, 100, 5),
    (66, 258, 3),
    (63, 65, 1),
    (192, 320, 3),
]
LENGTHS = [[1], [7, 130, 1, 64], [0, 3, 0, 5], [300, 20]]


@pytest.mark.parametrize(("hidden", "intermediate", "heads"), SHAPES)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_native_matches_reference(hidden, intermediate, heads, lengths, dtype, assert_accurate) -> None:
    layers = make_layers(2, hidden, intermediate, dtype=dtype)
    x, cu_seqlens, longest = make_input(lengths, hidden, dtype=dtype)
    packed = ops.pack_layers(layers, heads, products=dtype)
    out = ops.encoder(x, cu_seqlens, longest, packed)
    assert out.dtype == dtype
    expected = truth(x, cu_seqlens, longest, layers, heads)
    # Plain PyTorch, every op in the dtype of the activations.
    plain = x
    for layer in layers:
        q, k, v = torch.nn.functional.linear(plain, layer[0], layer[1]).unflatten(-1, (3, heads, -1)).unbind(1)
        context, _ = reference.attention(
            q, k, v, cu_seqlens, cu_seqlens, longest, longest, q.shape[-1] ** -0.5, False, 0.0, None, 0
        )
        h = torch.nn.functional.linear(context.flatten(1), layer[2], layer[3]) + plain
        h = torch.nn.functional.layer_norm(h, (hidden,), layer[4], layer[5], 1e-12)
        wide = torch.nn.functional.gelu(torch.nn.functional.linear(h, layer[6], layer[7]))
        plain = torch.nn.functional.linear(wide, layer[8], layer[9]) + h
        plain = torch.nn.functional.layer_norm(plain, (hidden,), layer[10], layer[11], 1e-12)
    assert_accurate("out", out, expected, plain)


@pytest.mark.parametrize("inputs", [16, 33, 300])
@pytest.mark.parametrize("products", PRODUCTS, ids=str)
def test_with_a_projection_of_the_input(inputs, products) -> None:
    """It equals the projection, then the layers; of any width, with a bias and without."""
    x, cu_seqlens, longest = make_input([7, 130, 1, 64], inputs, padding=2)
    g = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(64, inputs, generator=g) * inputs**-0.5, torch.randn(64, generator=g)
    layers = make_layers(2, 64, 96)
    x = x.to(torch.bfloat16 if products is torch.bfloat16 else torch.float32)
    for some in (bias, None):
        packed = ops.pack_layers(layers, 2, products=products, projection_weight=weight, projection_bias=some)
        out = ops.encoder(x, cu_seqlens, longest, packed)
        assert out.shape == (204, 64)
        assert out.dtype == x.dtype
        hidden = torch.nn.functional.linear(x.double(), weight.double(), None if some is None else some.double())
        expected = truth(hidden, cu_seqlens, longest, layers, 2)
        limit = {torch.float32: 1e-6, torch.bfloat16: 0.02, torch.int8: 0.05}[products]
        assert (out.double() - expected).norm() < limit * expected.norm()


@pytest.mark.skipif(not HAS_INT8, reason="this processor does not multiply bytes")
@pytest.mark.parametrize(("hidden", "intermediate", "heads"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_native_int8_matches_reference(hidden, intermediate, heads, dtype) -> None:
    """The same rounding as the reference's, but for ties and what bfloat16 passes on; and not far from the truth."""
    layers = make_layers(1, hidden, intermediate)
    x, cu_seqlens, longest = make_input([7, 130, 1, 64], hidden, dtype=dtype)
    out = ops.encoder(x, cu_seqlens, longest, ops.pack_layers(layers, heads, products=torch.int8)).double()
    quantised = truth(x, cu_seqlens, longest, layers, heads, int8=True)
    exact = truth(x, cu_seqlens, longest, layers, heads)
    cost = (quantised - exact).abs()
    error = (out - quantised).abs()
    spread = exact.std()
    assert cost.mean() < 0.02 * spread
    assert error.mean() < (0.002 if dtype is torch.float32 else 0.01) * spread
    assert error.max() < 0.2 * spread


@pytest.mark.skipif(not HAS_INT8, reason="this processor does not multiply bytes")
def test_native_int8_with_rows_and_columns_of_zeros() -> None:
    layers = make_layers(1, 64, 96)
    layers[0].projections_weight[:, 5] = 0
    layers[0].intermediate_weight[3] = 0
    layers[0].output_norm_weight.zero_()
    layers = layers + make_layers(1, 64, 96, seed=3)
    x, cu_seqlens, longest = make_input([5], 64)
    x[2] = 0
    out = ops.encoder(x, cu_seqlens, longest, ops.pack_layers(layers, 2, products=torch.int8))
    assert torch.isfinite(out).all()
    assert (out - truth(x, cu_seqlens, longest, layers, 2).float()).abs().mean() < 0.05


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_float32_weights_are_rounded_to_products(products) -> None:
    layers = make_layers(1, 64, 128)
    rounded = [LayerParameters(*(t.to(products).float() if t.ndim == 2 else t for t in layer)) for layer in layers]
    x, cu_seqlens, longest = make_input([9, 4], 64, dtype=products)
    a, b = (ops.encoder(x, cu_seqlens, longest, ops.pack_layers(w, 2, products=products)) for w in (layers, rounded))
    assert torch.equal(a, b)


def test_without_biases_and_float16_weights() -> None:
    layers = make_layers(2, 48, 80, dtype=torch.float16, biases=False)
    x, cu_seqlens, longest = make_input([6, 2], 48)
    out = ops.encoder(x, cu_seqlens, longest, ops.pack_layers(layers, 3))
    torch.testing.assert_close(out.double(), truth(x, cu_seqlens, longest, layers, 3), rtol=0, atol=2e-5)


def test_rows_behind_the_last_sequence_see_nothing() -> None:
    """They come out as a sequence's tokens would whose attention gave zeros, and do not touch the others."""
    layers = make_layers(2, 32, 64)
    x, cu_seqlens, longest = make_input([6, 2], 32, padding=3)
    packed = ops.pack_layers(layers, 2)
    out = ops.encoder(x, cu_seqlens, longest, packed)
    assert torch.equal(out[:8], ops.encoder(x[:8], cu_seqlens, longest, packed))
    torch.testing.assert_close(out.double(), truth(x, cu_seqlens, longest, layers, 2), rtol=0, atol=2e-5)


def test_no_rows_and_no_sequences() -> None:
    packed = ops.pack_layers(make_layers(1, 32, 64), 2)
    nothing = torch.zeros(1, dtype=torch.int32)
    assert ops.encoder(torch.randn(0, 32), nothing, 1, packed).shape == (0, 32)
    assert torch.isfinite(ops.encoder(torch.randn(4, 32), nothing, 1, packed)).all()


def test_sequences_do_not_see_each_other() -> None:
    packed = ops.pack_layers(make_layers(2, 64, 128), 2)
    x, cu_seqlens, longest = make_input([40, 90, 3], 64)
    together = ops.encoder(x, cu_seqlens, longest, packed)
    for begin, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        alone = ops.encoder(x[begin:end], torch.tensor([0, end - begin], dtype=torch.int32), longest, packed)
        torch.testing.assert_close(together[begin:end], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("products", [torch.float32, *([torch.int8] if HAS_INT8 else [])], ids=str)
def test_deterministic_for_any_number_of_threads(products, assert_deterministic) -> None:
    """Rows are cut into other blocks, but no sum is."""
    packed = ops.pack_layers(make_layers(2, 128, 256), 2, products=products)
    x, cu_seqlens, longest = make_input([100, 33], 128)
    assert_deterministic(lambda: ops.encoder(x, cu_seqlens, longest, packed))


def test_strided_input_and_poisoned_memory() -> None:
    packed = ops.pack_layers(make_layers(1, 32, 64), 2)
    x, cu_seqlens, longest = make_input([11], 64)
    for _ in range(3):
        poison = [torch.full((n,), float("nan")) for n in (11 * 32, 11 * 96, 22)]
        del poison
        out = ops.encoder(x[:, ::2], cu_seqlens, longest, packed)
        assert torch.equal(out, ops.encoder(x[:, ::2].contiguous(), cu_seqlens, longest, packed))


def test_opcheck_and_compile() -> None:
    packed = ops.pack_layers(make_layers(1, 32, 64), 2)
    x, cu_seqlens, longest = make_input([4, 3], 32)
    arguments = (x, cu_seqlens, longest, None, list(packed.parameters), 32, 2, 64, 1e-12)
    torch.library.opcheck(
        torch.ops.electra_fast.encoder.default, arguments, test_utils=("test_schema", "test_faketensor")
    )
    compiled = torch.compile(
        lambda x: ops.encoder(x, cu_seqlens, longest, packed) + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x), ops.encoder(x, cu_seqlens, longest, packed) + 1)


def test_bad_arguments() -> None:
    layers = make_layers(1, 32, 64)
    packed = ops.pack_layers(layers, 2)
    x, cu_seqlens, longest = make_input([4, 3], 32)
    with pytest.raises(ValueError, match=r"pack_layers: layers must hold at least one"):
        ops.pack_layers([], 2)
    with pytest.raises(ValueError, match="pack_layers: products must be one of float32, bfloat16, int8"):
        ops.pack_layers(layers, 2, products=torch.float16)
    with pytest.raises(ValueError, match=r"layers\[1\]\.projections_weight must have shape \[96, 32\], got \[48, 16\]"):
        ops.pack_layers([*layers, *make_layers(1, 16, 64)], 2)
    with pytest.raises(
        TypeError, match=r"layers\[0\]\.output_bias must be float32 or bfloat16 or float16, got float64"
    ):
        ops.pack_layers([layers[0]._replace(output_bias=torch.zeros(32, dtype=torch.float64))], 2)
    with pytest.raises(ValueError, match=r"pack_layers: projection_weight must have shape \[32, \*\], got \[16, 32\]"):
        ops.pack_layers(layers, 2, projection_weight=torch.randn(16, 32))
    with pytest.raises(ValueError, match=r"pack_layers: projection_bias must have shape \[32\], got \[16\]"):
        ops.pack_layers(layers, 2, projection_weight=torch.randn(32, 16), projection_bias=torch.randn(16))
    with pytest.raises(ValueError, match="pack_layers: projection_bias needs projection_weight, got none"):
        ops.pack_layers(layers, 2, projection_bias=torch.randn(32))
    with pytest.raises(ValueError, match=r"encoder: x must have shape \[\*, 32\], got \[7, 31\]"):
        ops.encoder(x[:, :31], cu_seqlens, longest, packed)
    with pytest.raises(ValueError, match="encoder: max_seqlen must be at least 4, the length of a sequence, got 3"):
        ops.encoder(x, cu_seqlens, 3, packed)
    with pytest.raises(ValueError, match="encoder: heads must divide the hidden size, 32, got 3"):
        ops.encoder(x, cu_seqlens, longest, ops.pack_layers(layers, 3))
    with pytest.raises(ValueError, match="encoder: cu_seqlens must start at 0"):
        ops.encoder(x, cu_seqlens + 1, longest, packed)
    with pytest.raises(TypeError, match="x must be bfloat16 like the products"):
        ops.encoder(x, cu_seqlens, longest, ops.pack_layers(layers, 2, products=torch.bfloat16))
    with pytest.raises(RuntimeError, match="encoder: it has no derivative"):
        ops.encoder(x.requires_grad_(), cu_seqlens, longest, packed)


def test_bad_arguments_of_the_native_op() -> None:
    weight = torch.randn(8, 4)
    pack, encode = torch.ops.electra_fast.pack_linear, torch.ops.electra_fast.encoder
    with pytest.raises(RuntimeError, match=r"pack_linear: weight must have shape \[out, in\], got \[8\]"):
        pack(weight[:, 0], None, torch.float32)
    with pytest.raises(RuntimeError, match=r"pack_linear: bias must have shape \[8\], got \[4\]"):
        pack(weight, torch.randn(4), torch.float32)
    with pytest.raises(RuntimeError, match="pack_linear: dtype must be float32, bfloat16 or int8"):
        pack(weight, None, torch.float64)
    with pytest.raises(RuntimeError, match="pack_linear: weight must be float32 or bfloat16"):
        pack(weight.double(), None, torch.float32)
    x, cu_seqlens, longest = make_input([4], 32)
    good = list(ops.pack_layers(make_layers(1, 32, 64), 2).parameters)
    with pytest.raises(RuntimeError, match="encoder: parameters must hold 8 tensors a layer, got 7"):
        encode(x, cu_seqlens, longest, None, good[:7], 32, 2, 64, 1e-12)
    with pytest.raises(RuntimeError, match=r"encoder: parameters\[4\] must be pack_linear of a weight \[200, 32\]"):
        encode(x, cu_seqlens, longest, None, good, 32, 2, 200, 1e-12)
    with pytest.raises(RuntimeError, match=r"encoder: x must have shape \[tokens, 64\], got \[4, 32\]"):
        encode(x, cu_seqlens, longest, None, good, 64, 2, 64, 1e-12)
    with pytest.raises(RuntimeError, match=r"encoder: projection must be pack_linear of a weight \[32, 32\]"):
        encode(x, cu_seqlens, longest, pack(weight, None, torch.float32), good, 32, 2, 64, 1e-12)
    with pytest.raises(RuntimeError, match=r"encoder: parameters\[2\] must have shape \[32\], got \[31\]"):
        encode(x, cu_seqlens, longest, None, [*good[:2], good[2][:31], *good[3:]], 32, 2, 64, 1e-12)
    with pytest.raises(RuntimeError, match=r"encoder: parameters\[0\] must come from pack_linear"):
        encode(x, cu_seqlens, longest, None, [good[0].long(), *good[1:]], 32, 2, 64, 1e-12)


def test_why_it_cannot_run(monkeypatch) -> None:
    assert ops.encoder_missing("cpu", torch.float32) is None
    assert "for the CPU, not for cuda" in ops.encoder_missing("cuda", torch.float32)
    assert "not float64" in ops.encoder_missing("cpu", torch.float64)
    with ops.use_backend("reference", ops=["gelu"]):
        assert "backend reference was asked for" in ops.encoder_missing("cpu", torch.float32)
    monkeypatch.setattr(sys.modules["electra_fast.ops.encoder"], "_has_int8", lambda: False)
    assert "AVX-512 VNNI" in ops.encoder_missing("cpu", torch.float32, torch.int8)
    with pytest.raises(RuntimeError, match="pack_layers: products of int8 need a processor"):
        ops.pack_layers(make_layers(1, 32, 64), 2, products=torch.int8)
    monkeypatch.setattr(native, "error", "not built")
    assert ops.encoder_missing("cpu", torch.float32) == "not built"
