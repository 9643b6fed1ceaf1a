"""The CUDA kernels of embedding in the emulator, through their torch boundary, against the reference and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra_fast import reference, rng
from electra_fast.reference.philox import dropout_mask, keep_scale

EPS = 1e-12
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TABLES = ("word", "position", "token_type", "weight", "bias")

# (shape of the ids, rows of the word table, width): rows that a warp holds and rows of a block; one digit and two to
# sort by; ids that all differ and ids that span many windows of 64 sorted tokens.
CASES = [
    ((9,), 67, 40),
    ((3, 70), 130, 128),
    ((5,), 300, 768),
    ((1,), 5, 1024),
    ((2, 0), 11, 16),
    ((300,), 4, 33),
    ((2, 2, 3), 4096, 7),
    ((6,), 20, 1100),
]


@pytest.fixture(scope="module")
def ops(emulator):
    return emulator.load("embedding")


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


def options(dropout: bool) -> tuple:
    return (0.1, rng.make(31, 2**33 + 2), 1) if dropout else (0.0, None, 0)


def truth(inputs: dict[str, Tensor], grad: Tensor, rest: tuple, padding: int = -1) -> tuple[tuple, list[Tensor]]:
    """y, mean, rstd and the gradients, in float64."""
    wide = {n: t.double().requires_grad_() if n in TABLES else t for n, t in inputs.items()}
    outputs = reference.embedding(*wide.values(), EPS, *rest, padding, torch.float64)
    leaves = [wide[n] for n in TABLES]
    return outputs, list(torch.autograd.grad(outputs[0], leaves, grad.double()))


def backward(ops, inputs: dict[str, Tensor], grad: Tensor, outputs: tuple, rest: tuple, padding: int = -1) -> tuple:
    return ops.embedding_backward(grad, *inputs.values(), *outputs[1:], *rest, padding)


def assert_close(name: str, actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """One rounding to the result's dtype beside the arithmetic in float32."""
    assert actual.dtype == dtype, name
    assert actual.shape == expected.shape, name
    tolerance = {"rtol": 1.01 * torch.finfo(dtype).eps + 1e-5, "atol": 5e-5}
    torch.testing.assert_close(actual.double(), expected.double(), **tolerance, msg=lambda m: f"{name}: {m}")


def check(ops, inputs: dict[str, Tensor], out_dtype: torch.dtype, dropout: bool, padding: int = -1) -> tuple:
    rest = options(dropout)
    outputs = ops.embedding(*inputs.values(), EPS, *rest, padding, out_dtype)
    grad = torch.randn(outputs[0].shape).to(out_dtype)
    expected, expected_grads = truth(inputs, grad, rest, padding)
    for name, actual, wanted, dtype in zip(
        ("y", "mean", "rstd"), outputs, expected, (out_dtype, torch.float32, torch.float32), strict=True
    ):
        assert_close(name, actual, wanted, dtype)
    grads = backward(ops, inputs, grad, outputs, rest, padding)
    for name, actual, wanted in zip(TABLES, grads, expected_grads, strict=True):
        assert_close(f"d{name}", actual, wanted, inputs[name].dtype)
    return outputs, grads


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_reference(ops, case, dtype) -> None:
    for dropout in (False, True):
        check(ops, make(*case, dtype), dtype, dropout)


@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("width", [128, 768, 48, 50])
def test_float32_tables(ops, width, out_dtype) -> None:
    """Rows rounded once; gradients stay float32."""
    check(ops, make((3, 9), 67, width), out_dtype, True)


@pytest.mark.parametrize("padding_idx", [0, 3])
def test_padding_row_gets_no_gradient(ops, padding_idx) -> None:
    _, grads = check(ops, make((50,), 5, 24), torch.float32, False, padding_idx)
    assert (grads[0][padding_idx] == 0).all()


def test_repeated_ids_accumulate_in_full_precision(ops) -> None:
    """A row hit 3000 times gets the sum of its gradients, over many windows, not one stuck at bfloat16's resolution."""
    inputs = make((3000,), 300, 16, torch.bfloat16)
    inputs["input_ids"][torch.rand(3000) < 0.9] = 256  # a key of two digits
    check(ops, inputs, torch.bfloat16, False)


def test_many_tiles_of_the_sort(ops, emulator) -> None:
    """2100 tokens are three tiles; every window's ids cross its ends or not as chance has it."""
    inputs = make((2100,), 70000, 8)
    inputs["input_ids"] = (torch.rand(2100) ** 6 * 70000).long()  # three digits, skewed
    inputs["position_ids"] = torch.arange(2100) % 12
    check(ops, inputs, torch.float32, True)

    grad, rest = torch.randn(2100, 8), options(True)
    outputs = ops.embedding(*inputs.values(), EPS, *rest, 0, torch.float32)
    emulator.same_under_every_schedule(lambda: backward(ops, inputs, grad, outputs, rest, 0))


@pytest.mark.parametrize("case", [((130,), 67, 128), ((40,), 30, 768), ((20,), 30, 77)], ids=str)
def test_same_bits_in_any_order(ops, emulator, case) -> None:
    inputs, rest = make(*case, torch.bfloat16), options(True)
    grad = torch.randn(*case[0], case[2]).bfloat16()

    def run() -> list[Tensor]:
        outputs = ops.embedding(*inputs.values(), EPS, *rest, -1, torch.bfloat16)
        return [*outputs, *backward(ops, inputs, grad, outputs, rest)]

    emulator.same_under_every_schedule(run)


@pytest.mark.parametrize("width", [128, 100])
def test_dropout_bits(ops, width) -> None:
    inputs, rest = make((5, 7), 50, width), options(True)
    out = ops.embedding(*inputs.values(), EPS, *rest, -1, torch.float32)[0]
    undropped = ops.embedding(*inputs.values(), EPS, 0.0, None, 0, -1, torch.float32)[0]
    mask = dropout_mask(35, width, *rest).view(5, 7, width)
    assert torch.equal(out != 0, mask & (undropped != 0))
    torch.testing.assert_close(out, undropped * mask * keep_scale(rest[0]))


@pytest.mark.parametrize("width", [128, 50])
def test_ids_outside_their_table(ops, width) -> None:
    """Such a token's row is NaN and reads nothing; other rows and their gradients are untouched by it."""
    inputs = make((70,), 9, width)
    inputs["input_ids"][3], inputs["position_ids"][8], inputs["token_type_ids"][60] = 9, -1, 2**40
    bad = torch.zeros(70, dtype=torch.bool)
    bad[[3, 8, 60]] = True
    outputs = ops.embedding(*inputs.values(), EPS, *options(False), -1, torch.float32)
    assert outputs[0][bad].isnan().all()
    good = {n: t if n in TABLES else t[~bad] for n, t in inputs.items()}
    expected = ops.embedding(*good.values(), EPS, *options(False), -1, torch.float32)
    assert torch.equal(outputs[0][~bad], expected[0])

    dword, dposition, dtoken_type, *_ = backward(ops, inputs, torch.randn(70, width), outputs, options(False))
    # a missed table gets nothing of the token; the tables that were not missed get its NaN
    assert dword.isnan().any(1).nonzero().flatten().tolist() == sorted({int(inputs["input_ids"][t]) for t in (8, 60)})
    hit = sorted({int(inputs["position_ids"][t]) for t in (3, 60)})
    assert dposition.isnan().any(1).nonzero().flatten().tolist() == hit
    assert dtoken_type.isnan().any(1).sum() >= 1


def test_any_strides_and_alignment(ops) -> None:
    inputs, rest = make((6, 8), 20, 64), options(True)
    grad = torch.randn(6, 8, 64)
    outputs = ops.embedding(*inputs.values(), EPS, *rest, -1, torch.float32)
    expected = [*outputs, *backward(ops, inputs, grad, outputs, rest)]

    def shifted(t: Tensor) -> Tensor:
        return torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape)

    def transposed(t: Tensor) -> Tensor:
        return t.transpose(0, -1).contiguous().transpose(0, -1) if t.ndim > 1 else t.repeat_interleave(2)[::2]

    for change in (shifted, transposed):
        changed = {n: change(t) for n, t in inputs.items()}
        outputs = ops.embedding(*changed.values(), EPS, *rest, -1, torch.float32)
        actual = [*outputs, *backward(ops, changed, change(grad), outputs, rest)]
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word": torch.ones(5, 8).double()}, "embedding: position must have the dtype of word"),
        ({"word": torch.ones(5)}, r"embedding: word must have shape \[rows, columns\], got \[5\]"),
        ({"position": torch.ones(5, 9)}, "embedding: position must have the columns of word, 8, got 9"),
        ({"input_ids": torch.ones(3).int()}, "embedding: input_ids must be int64"),
        (
            {"position_ids": torch.ones(4).long()},
            r"embedding: position_ids must have the shape of input_ids, \[3\], got \[4\]",
        ),
        ({"weight": torch.ones(7)}, r"embedding: weight must have shape \[8\], got \[7\]"),
        ({"bias": torch.ones(8).half()}, "embedding: bias must be float32 or of the dtype of the activations"),
        ({"dropout_p": 0.5}, "embedding: dropout_p > 0 needs rng"),
        ({"out_dtype": torch.float64}, "embedding: out_dtype must be float32, bfloat16 or float16 on CUDA"),
        (
            {n: torch.ones(2, 8193) for n in ("word", "position", "token_type")},
            "embedding: word must have at most 8192 columns on CUDA, got 8193",
        ),
    ],
)
def test_errors(ops, change, message) -> None:
    rest = {"eps": EPS, "dropout_p": 0.0, "rng": None, "site": 0, "padding_idx": -1, "out_dtype": torch.float32}
    with pytest.raises(RuntimeError, match=message):
        ops.embedding(*{**make((3,), 5, 8), **rest, **change}.values())


@pytest.mark.parametrize(
    ("grad", "mean", "message"),
    [
        (torch.ones(3, 9), torch.ones(3), r"grad must have the shape of input_ids and 8 columns, got \[3, 9\]"),
        (torch.ones(3, 8), torch.ones(4), "mean and rstd must be those that embedding returned"),
        (torch.ones(3, 8).double(), torch.ones(3), "grad must be float32, bfloat16 or float16 on CUDA"),
    ],
)
def test_backward_errors(ops, grad, mean, message) -> None:
    with pytest.raises(RuntimeError, match=f"embedding_backward: {message}"):
        ops.embedding_backward(grad, *make((3,), 5, 8).values(), mean, torch.ones(3), 0.0, None, 0, -1)
