"""embedding against three F.embedding and F.layer_norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, reference, rng
from electra_fast.reference.philox import dropout_mask, keep_scale

OP = "embedding"
EPS = 1e-12
OPTIONS = {"dropout_p": 0.1, "rng": rng.make(31, 2), "site": 1}
TABLES = ("word", "position", "token_type", "weight", "bias")

# (shape of the ids, rows of the word table, width)
CASES = [((9,), 67, 40), ((3, 20), 130, 128), ((1,), 5, 1000), ((2, 0), 11, 16), ((300,), 4, 33), ((2, 2, 3), 4096, 7)]


def make(shape: tuple[int, ...], vocabulary: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "input_ids": torch.randint(vocabulary, shape),
        "position_ids": torch.randint(12, shape),
        "token_type_ids": torch.randint(2, shape),
        "word": torch.randn(vocabulary, width).to(dtype),
        "position": torch.randn(12, width).to(dtype),
        "token_type": torch.randn(2, width).to(dtype),
        "weight": (1 + 0.1 * torch.randn(width)).to(dtype),
        "bias": torch.randn(width).to(dtype),
    }


def plain(
    input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, keep=None, padding_idx=None
):
    s = F.embedding(input_ids, word, padding_idx)
    s = s + F.embedding(position_ids, position) + F.embedding(token_type_ids, token_type)
    y = F.layer_norm(s, s.shape[-1:], weight, bias, EPS)
    return y if keep is None else y * keep * keep_scale(OPTIONS["dropout_p"])


def mask_of(inputs: dict[str, Tensor]) -> Tensor:
    ids, width = inputs["input_ids"], inputs["word"].shape[1]
    mask = dropout_mask(ids.numel(), width, OPTIONS["dropout_p"], OPTIONS["rng"], OPTIONS["site"])
    return mask.view(*ids.shape, width)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_torch(backend, dtype, case, dropout, assert_matches_plain) -> None:
    inputs = make(*case, dtype)
    keep, options = (mask_of(inputs), OPTIONS) if dropout else (None, {})
    assert_matches_plain(
        lambda **given: ops.embedding(**given, **options), lambda **given: plain(**given, keep=keep), inputs
    )


def test_repeated_ids_accumulate_in_full_precision(backend, gradients) -> None:
    """A row hit 4096 times gets the sum of its gradients, not a sum stuck at the resolution of bfloat16."""
    inputs = make((4096,), 3, 16, torch.bfloat16)
    inputs["input_ids"] = torch.zeros(4096, dtype=torch.int64)
    _, truth = gradients(plain, {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()})
    _, grads = gradients(lambda **given: ops.embedding(**given, **{}), inputs)
    error = (grads["word"][0].double() - truth["word"][0]).abs().max()
    assert error < 0.02 * truth["word"][0].abs().max()


@pytest.mark.parametrize("padding_idx", [None, 0, 3])
def test_padding_row_gets_no_gradient(backend, padding_idx, gradients) -> None:
    inputs = make((50,), 5, 24)
    _, grads = gradients(lambda **given: ops.embedding(**given, padding_idx=padding_idx), inputs)
    _, expected = gradients(lambda **given: plain(**given, padding_idx=padding_idx), inputs)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected[name])
    if padding_idx is not None:
        assert (grads["word"][padding_idx] == 0).all()


def test_dropout_bits(backend) -> None:
    inputs = make((5, 37), 50, 100)
    out, undropped = ops.embedding(**inputs, **OPTIONS), ops.embedding(**inputs)
    assert torch.equal(out != 0, mask_of(inputs) & (undropped != 0))
    torch.testing.assert_close(out, undropped * mask_of(inputs) * keep_scale(OPTIONS["dropout_p"]))


def test_fresh_seed_follows_the_generator(backend) -> None:
    inputs = make((8,), 5, 64)
    torch.manual_seed(5)
    first, second = ops.embedding(**inputs, dropout_p=0.5), ops.embedding(**inputs, dropout_p=0.5)
    torch.manual_seed(5)
    assert torch.equal(ops.embedding(**inputs, dropout_p=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float32])
def test_out_dtype(backend, out_dtype, gradients) -> None:
    """float32 tables give bfloat16 rows rounded once; gradients stay float32."""
    inputs = make((3, 9), 67, 48)
    out, grads = gradients(lambda **given: ops.embedding(**given, out_dtype=out_dtype), inputs)
    assert out.dtype == out_dtype
    torch.testing.assert_close(out, plain(**inputs).to(out_dtype), rtol=2**-7, atol=1e-6)
    assert all(grad.dtype == torch.float32 for grad in grads.values())


def test_autocast_gives_its_dtype(backend) -> None:
    inputs = make((9,), 67, 48)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.embedding(**inputs), ops.embedding(**inputs, out_dtype=torch.bfloat16))
        assert ops.embedding(**inputs, out_dtype=torch.float32).dtype == torch.float32
        double = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
        assert ops.embedding(**double).dtype == torch.float64


@pytest.mark.parametrize("dropout", [False, True])
def test_all_outputs_agree(native_op, dtype, dropout) -> None:
    given = make((3, 21), 67, 72, dtype)
    rest = (0.1, OPTIONS["rng"], 1) if dropout else (0.0, None, 0)
    arguments = (*given.values(), EPS, *rest, -1, dtype)
    tolerance = max(1e-5, torch.finfo(dtype).eps)
    for name, a, b in zip(("y", "mean", "rstd"), native_op(*arguments), reference.embedding(*arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_non_contiguous(backend, gradients) -> None:
    inputs = make((6, 8), 20, 24)
    views = {n: x.t().contiguous().t() if x.ndim == 2 else x for n, x in inputs.items()}
    out, grads = gradients(lambda **given: ops.embedding(**given, **OPTIONS), views)
    expected, expected_grads = gradients(lambda **given: ops.embedding(**given, **OPTIONS), inputs)
    assert torch.equal(out, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name])


def test_gradient_with_any_strides(backend) -> None:
    inputs = make((6, 8), 20, 24)
    inputs["word"].requires_grad_()
    for grad in (torch.randn(24, 8, 6).permute(2, 1, 0), torch.randn(24).expand(6, 8, 24)):
        (actual,) = torch.autograd.grad(ops.embedding(**inputs), inputs["word"], grad)
        (expected,) = torch.autograd.grad(plain(**inputs), inputs["word"], grad)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dropout", [False, True])
def test_gradcheck(backend, dropout) -> None:
    inputs = make((7,), 4, 6, torch.float64)
    leaves = [inputs[name].requires_grad_() for name in TABLES]
    ids = [inputs[name] for name in ("input_ids", "position_ids", "token_type_ids")]
    options = OPTIONS if dropout else {}
    assert torch.autograd.gradcheck(lambda *tables: ops.embedding(*ids, *tables, **options), leaves)


@pytest.mark.parametrize("dropout", [False, True])
def test_opcheck(native_op, native_backward, dropout) -> None:
    given = make((3, 5), 11, 16)
    for name in TABLES:
        given[name].requires_grad_()
    rest = (0.1, OPTIONS["rng"], 1) if dropout else (0.0, None, 0)
    torch.library.opcheck(native_op, (*given.values(), EPS, *rest, 0, torch.bfloat16))
    detached = [x.detach() for x in given.values()]
    y, mean, rstd = native_op(*detached, EPS, *rest, 0, torch.float32)
    torch.library.opcheck(
        native_backward,
        (torch.randn_like(y), *detached, mean, rstd, *rest, 0),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compiles(backend, assert_compiles) -> None:
    assert_compiles(lambda **given: ops.embedding(**given, **OPTIONS, padding_idx=0) * 2, make((6,), 11, 16))


def test_deterministic(backend, gradients, assert_deterministic) -> None:
    inputs = make((500,), 9, 48)

    def run() -> list[Tensor]:
        out, grads = gradients(lambda **given: ops.embedding(**given, **OPTIONS), inputs)
        return [out, *grads.values()]

    assert_deterministic(run)


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "token_type_ids"])
@pytest.mark.parametrize("value", [-1, 12])
@pytest.mark.reads_values
def test_id_outside_its_table(backend, name, value) -> None:
    inputs = make((4,), 12, 8)
    inputs[name][2] = value
    with pytest.raises(ValueError, match=f"embedding.*{name}"):
        ops.embedding(**inputs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"word": torch.ones(8)}, ValueError, r"embedding: word must have shape \[\*, \*\], got \[8\]"),
        ({"position": torch.ones(12, 7)}, ValueError, r"embedding: position must have shape \[\*, 8\], got \[12, 7\]"),
        ({"token_type": torch.ones(2, 8).double()}, TypeError, "embedding: token_type must be float32, got float64"),
        ({"weight": torch.ones(9)}, ValueError, r"embedding: weight must have shape \[8\], got \[9\]"),
        ({"bias": torch.ones(8).long()}, TypeError, "embedding: bias must be float32, got int64"),
        ({"out_dtype": torch.float64}, TypeError, "embedding: out_dtype must be float64 for float64 tables and only"),
        ({"input_ids": torch.ones(4).int()}, TypeError, "embedding: input_ids must be int64, got int32"),
        (
            {"position_ids": torch.ones(5).long()},
            ValueError,
            r"embedding: position_ids must have shape \[4\], got \[5\]",
        ),
        ({"padding_idx": 5}, ValueError, r"embedding: padding_idx must be in \[-1, 4\], got 5"),
        ({"dropout_p": 1.0}, ValueError, "embedding: dropout_p must be in"),
    ],
)
def test_errors(change, error, message) -> None:
    with pytest.raises(error, match=message):
        ops.embedding(**{**make((4,), 5, 8), **change})


@pytest.mark.parametrize(
    "name", ["input_ids", "position_ids", "token_type_ids", "word", "position", "token_type", "weight", "bias"]
)
def test_every_tensor_is_checked(name) -> None:
    """They are checked together, and one by one only where that fails: nothing may slip through."""
    inputs = make((4,), 5, 8)
    x = inputs[name]
    with pytest.raises(TypeError, match=f"embedding: {name} must be a Tensor, got list"):
        ops.embedding(**{**inputs, name: x.tolist()})
    with pytest.raises(TypeError, match=r"embedding: .* must be .*, got "):
        ops.embedding(**{**inputs, name: x.bool()})
    with pytest.raises(ValueError, match=r"embedding: .* must have shape"):
        ops.embedding(**{**inputs, name: x[None]})
    with pytest.raises(ValueError, match=r"embedding: .* must be on"):
        ops.embedding(**{**inputs, name: x.to("meta")})
