"""The emulator finds faults: every small kernel of emulation/faults.cu passes when right, and its faults do not."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

KERNELS = Path(__file__).parent / "emulation" / "faults.cu"


@pytest.fixture(scope="module")
def library(emulator):
    return emulator.load_kernels("faults", KERNELS)


@pytest.fixture
def run(emulator, library):
    """``run(kernel, fault, in)`` → out, as long as asked for; RuntimeError with the emulator's message."""

    def call(kernel: str, fault: int, x: torch.Tensor, n: int, size: int | None = None) -> torch.Tensor:
        if fault and emulator.real:
            pytest.skip("a fault on a GPU is undefined")
        out, counter = torch.empty(size if size is not None else x.numel()), torch.zeros(1, dtype=torch.int32)
        if emulator.real:
            x, out, counter = x.cuda(), out.cuda(), counter.cuda()
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, out, counter)]
        code = library.run_fault(kernel.encode(), fault, pointers[0], pointers[1], n, pointers[2])
        message = emulator.take_error()
        assert code >= 0, f"no kernel {kernel}"
        assert (code == 0) == (message == "")
        if code:
            raise RuntimeError(message)
        return out.cpu()

    return call


def skip_on_gpu(emulator) -> None:
    if emulator.real:
        pytest.skip("only the emulator finds this")


def numbers(n: int) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32)


RIGHT = {
    "reverse": (128, None, lambda x: x.view(2, 64).flip(1).flatten()),
    "rounds": (192, 64, lambda x: x.view(3, 64).sum(0).flip(0)),
    "pipeline": (320, None, lambda x: x),
    "warp_exchange": (32, None, lambda x: x.view(16, 2).flip(1).flatten()),
    "guards": (45, None, lambda x: x),
    "producer": (128, None, lambda x: x.view(4, 32).flip(1).flatten()),
    "shuffle": (32, None, lambda x: x.sum().expand(32)),
}


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random"])
@pytest.mark.parametrize("kernel", RIGHT)
def test_right_kernels_pass(run, emulator, kernel, schedule) -> None:
    n, size, expected = RIGHT[kernel]
    x = numbers(n)
    with emulator.configured(schedule, seed=3):
        assert torch.equal(run(kernel, 0, x, n, size), expected(x))


@pytest.mark.parametrize(
    ("kernel", "fault", "message"),
    [
        ("reverse", 1, r"race: (reads|writes) byte \d+ of static shared memory, (read|written) by thread"),
        ("reverse", 2, "writes 4 bytes at byte 256 of the 256 bytes of dynamic shared memory"),
        ("reverse", 3, r"index 64 is outside the array of type 'float \[64\]' at .*faults.cu:\d+"),
        ("rounds", 1, r"race: (reads|writes) byte \d+ of static shared memory, (read|written) by thread"),
        ("pipeline", 1, "an asynchronous copy is still on its way to: a wait is missing"),
        ("pipeline", 2, "an asynchronous copy is still on its way to: a wait is missing"),
        ("pipeline", 3, "an asynchronous copy is still on its way to|race: (reads|writes)"),
        ("pipeline", 4, "an asynchronous copy is still on its way to: a wait is missing"),
        ("pipeline", 5, "writes shared memory that an asynchronous copy is still on its way to"),
        ("zero_fill", 1, r"reads 16 bytes at byte \d+ of a tensor of 64 bytes"),
        ("shuffle", 2, "the mask fffffffe does not name the calling lane 0"),
        ("shuffle", 3, "__shfl_.*_sync while other lanes of the mask ffffffff wait in __shfl"),
        ("warp_exchange", 1, "race: (reads|writes) byte"),
        ("guards", 1, r"reads 4 bytes at byte \d+ of a tensor of 180 bytes"),
        ("guards", 2, r"writes 4 bytes at byte \d+ of a tensor of 180 bytes"),
        ("guards", 3, "reads 16 bytes at .*, which is not aligned to 16"),
        ("producer", 1, "race: (reads|writes) byte"),
        ("producer", 2, r"deadlock in block \(0, 0, 0\): every thread waits\n  named barrier 1: 32 of 64 threads"),
        ("producer", 3, "race: (reads|writes) byte|deadlock"),
        (
            "last_block",
            2,
            r"deadlock .*\n  __syncthreads: 16 of 32 threads\n  warp 0 in __shfl_sync: lanes ffff0000 of ffffffff",
        ),
        ("multiply_bf16", 3, "reads 16 bytes at .*, which is not aligned to 16"),
    ],
)
@pytest.mark.parametrize("schedule", ["forward", "reverse"])
def test_faults_are_found(run, emulator, kernel, fault, message, schedule) -> None:
    x = numbers(RIGHT[kernel][0] if kernel in RIGHT else 16 if kernel == "zero_fill" else 384)
    n = 2 if kernel == "last_block" else x.numel()
    with emulator.configured(schedule), pytest.raises(RuntimeError, match=message):
        run(kernel, fault, x, n)


@pytest.mark.parametrize(("kernel", "fault"), [("shuffle", 1), ("shuffle", 4), ("guards", 4)])
def test_faults_that_give_wrong_numbers(run, kernel, fault) -> None:
    """A wrong lane is a legal program: it must not give the right numbers by luck. What nobody wrote is NaN."""
    n, size, expected = RIGHT[kernel]
    x = numbers(n)
    actual = run(kernel, fault, x, n, size)
    assert not torch.equal(actual, expected(x))
    assert actual.isnan().any() == (fault == 4)


def test_a_fault_says_where(run) -> None:
    with pytest.raises(RuntimeError, match=r"thread \(13, 0, 0\) of block \(1, 0, 0\)") as failure:
        run("guards", 2, numbers(45), 45)
    line = next(i for i, text in enumerate(KERNELS.read_text().splitlines(), 1) if "c.fault == 2) c.out[i] = x" in text)
    if "faults.cu:" in str(failure.value):  # where addr2line is installed
        assert f"faults.cu:{line}" in str(failure.value)


def test_asynchronous_copies_of_nothing_are_zeros(run) -> None:
    expected = numbers(16)
    expected[12:] = 0
    assert torch.equal(run("zero_fill", 0, numbers(16), 16), expected)


def test_collectives(run) -> None:
    x = numbers(32)
    out = run("collectives", 0, x, 32, 224).view(7, 32)
    lanes = torch.arange(32)
    assert torch.equal(out[0], torch.where(lanes < 3, x, x.roll(3)))
    assert torch.equal(out[1], torch.where(lanes % 16 > 12, x, x.roll(-3)))
    assert torch.equal(out[2], x[lanes // 2])
    assert torch.equal(out[3], (lanes ^ 1).float())
    assert (out[4] == 3).all()
    assert (out[5] == 31 * 32 / 2 + 31).all()
    assert (out[6] == 105).all()


def test_the_order_of_arrival_shows(run, emulator) -> None:
    x = numbers(6)
    emulator.same_under_every_schedule(lambda: [run("last_block", 0, x, 6, 7)])
    with pytest.raises(AssertionError, match="differs under the reverse schedule"):
        emulator.same_under_every_schedule(lambda: [run("last_block", 1, x, 6, 7)])


@pytest.mark.parametrize(("kernel", "dtype"), [("multiply_bf16", torch.bfloat16), ("multiply_f16", torch.float16)])
def test_tensor_cores(run, kernel, dtype) -> None:
    operands = torch.randn(384)
    a, b = operands[:256].view(16, 16).to(dtype).float(), operands[256:].view(16, 8).to(dtype).float()
    right = run(kernel, 0, operands, 0, 128).view(16, 8)
    torch.testing.assert_close(right, a @ b, rtol=1e-5, atol=1e-5)
    for fault in (1, 2):
        assert (run(kernel, fault, operands, 0, 128).view(16, 8) - a @ b).abs().max() > 0.1


def test_memory_of_before_is_no_memory_of_the_gpu(run, emulator) -> None:
    skip_on_gpu(emulator)
    emulator.guard(False)
    foreign = numbers(45)
    emulator.guard(True)
    with pytest.raises(
        RuntimeError, match=r"reads 4 bytes at 0x.*, which is no memory of a tensor|at byte -?[0-9]+ of a tensor"
    ):
        run("guards", 0, foreign, 45)


def test_freed_memory_is_out_of_bounds(run, emulator) -> None:
    skip_on_gpu(emulator)
    x = numbers(45)
    address = x.data_ptr()
    view = torch.empty(0)
    del x
    view.data_ptr = lambda: address
    with pytest.raises(RuntimeError, match="reads 4 bytes at"):
        run("guards", 0, view, 45, 45)


@pytest.mark.parametrize(
    ("kernel", "n", "message"),
    [("guards", 0, "a grid of 0 x 1 x 1 blocks cannot be launched"), ("reverse", 0, "a grid of 0 x 1 x 1 blocks")],
)
def test_launches_that_cannot_be(run, emulator, kernel, n, message) -> None:
    skip_on_gpu(emulator)
    with pytest.raises(RuntimeError, match=message):
        run(kernel, 0, numbers(1), n, 1)
