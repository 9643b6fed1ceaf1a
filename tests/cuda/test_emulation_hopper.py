"""The emulated Hopper instructions: mbarriers, TMA, wgmma and clusters do what they should in small kernels
(emulation/faults_hopper_sm90.cu), and deliberate faults in those are found."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

KERNELS = Path(__file__).parent / "emulation" / "faults_hopper_sm90.cu"
SWIZZLES = {"none": 0, "32": 1, "64": 2, "128": 3}
SCHEDULES = ["forward", "reverse", "random"]


@pytest.fixture(scope="module")
def library(emulator):
    if emulator.real and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("these instructions are Hopper's")
    return emulator.load_kernels("faults_hopper", KERNELS)


@pytest.fixture
def run(emulator, library):
    """``run(kernel, fault, a, b, out, numbers)`` fills out; RuntimeError with the emulator's message."""

    def call(kernel, fault, a, b, out, *numbers) -> torch.Tensor:
        if emulator.real:
            if fault:
                pytest.skip("a fault on a GPU is undefined")
            originals = [a, b]
            a, b, out = (t if t is None else t.cuda() for t in (a, b, out))
        pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (a, b, out)]
        padded = (ctypes.c_int * 8)(*numbers, *[0] * (8 - len(numbers)))
        code = library.run_fault(kernel.encode(), fault, *pointers, padded)
        message = emulator.take_error()
        assert code >= 0, f"no kernel {kernel}"
        assert (code == 0) == (message == "")
        if code:
            raise RuntimeError(message)
        if emulator.real:
            for original, t in zip(originals, (a, b), strict=True):
                if t is not None:
                    original.copy_(t)  # where a kernel stores
        return out.cpu()

    return call


def box_of(tensor: torch.Tensor, x: int, y: int, columns: int, rows: int) -> torch.Tensor:
    """The box at (x, y) of a matrix, zeros outside."""
    out = torch.zeros(rows, columns)
    for j in range(rows):
        for i in range(columns):
            if 0 <= y + j < tensor.shape[0] and 0 <= x + i < tensor.shape[1]:
                out[j, i] = tensor[y + j, x + i]
    return out


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("swizzle", "columns"), [("none", 12), ("32", 8), ("64", 16), ("128", 32), ("128", 16)])
def test_tma_loads_a_box(run, emulator, swizzle, columns, schedule) -> None:
    tensor = torch.randn(21, 40)
    with emulator.configured(schedule):
        for x, y in ((0, 0), (8, 4), (-5, 3), (30, -2), (37, 15), (100, 100)):
            out = run(
                "load_2d", 0, tensor, None, torch.empty(10, columns), 40, 21, 0, columns, 10, x, y, SWIZZLES[swizzle]
            )
            assert torch.equal(out, box_of(tensor, x, y, columns, 10))


def test_tma_loads_a_box_of_three_dimensions(run) -> None:
    tensor = torch.randn(2, 7, 36)
    out = run("load_3d", 0, tensor, None, torch.empty(2, 5, 32), 36, 7, 2, 32, 5, 12, 4, 3)
    assert torch.equal(out[0], box_of(tensor[1], 12, 4, 32, 5))  # from plane 1 on
    assert (out[1] == 0).all()


def test_tma_stores_a_box(run) -> None:
    for x, y in ((0, 0), (4, 3), (-4, -2), (36, 18)):
        tensor = torch.zeros(21, 40)
        run("store_2d", 0, tensor, None, torch.empty(1), 40, 21, 0, 12, 10, x, y, 0)
        expected = torch.zeros(21, 40)
        for i in range(120):
            row, column = y + i // 12, x + i % 12
            if 0 <= row < 21 and 0 <= column < 40:
                expected[row, column] = i
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_bulk_copies_in_stages(run, emulator, schedule) -> None:
    x = torch.randn(5 * 128)
    with emulator.configured(schedule):
        assert torch.equal(run("stages", 0, x, None, torch.empty(640), 640), 2 * x)


def operands(n: int, dtype: torch.dtype, a_mn: bool, b_mn: bool) -> tuple:
    """A [64, 64] and B [64, n] as stored, and their product."""
    a, b = torch.randn(64, 64).to(dtype), torch.randn(64, n).to(dtype)
    stored_a = a.t().contiguous() if a_mn else a.clone()
    stored_b = b.clone() if b_mn else b.t().contiguous()
    return stored_a, stored_b, a.float() @ b.float()


@pytest.mark.parametrize("b_major", ["k", "n"])
@pytest.mark.parametrize("a_from", ["registers", "k", "m"])
@pytest.mark.parametrize("swizzle", SWIZZLES)
def test_wgmma_in_every_layout(run, swizzle, a_from, b_major) -> None:
    a, b, expected = operands(64, torch.bfloat16, a_from == "m", b_major == "n")
    numbers = (SWIZZLES[swizzle], a_from == "registers", a_from == "m", b_major == "n", 64, 0)
    out = run("gemm", 0, a, b, torch.empty(64, 64), *map(int, numbers))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("n", "dtype", "b_mn"),
    [(8, torch.bfloat16, False), (64, torch.float16, False), (192, torch.bfloat16, True), (256, torch.float16, False)],
)
def test_wgmma_in_every_width(run, n, dtype, b_mn) -> None:
    a, b, expected = operands(n, dtype, False, b_mn)
    out = run("gemm", 0, a, b, torch.empty(64, n), 3, 0, 0, int(b_mn), n, int(dtype == torch.float16))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_wgmma_in_groups(run, emulator, schedule) -> None:
    a, b = torch.randn(64, 64).bfloat16(), torch.randn(64, 64).bfloat16()
    with emulator.configured(schedule):
        d, e = run("two_groups", 0, a, b, torch.empty(2, 64, 64))
    torch.testing.assert_close(d, a.float() @ b.float().t(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(e, b.float() @ a.float().t(), rtol=1e-5, atol=1e-4)


def test_wgmma_gives_nothing_before_the_wait(run) -> None:
    a, b, _ = operands(64, torch.bfloat16, False, False)
    assert run("gemm", 2, a, b, torch.empty(64, 64), 3, 0, 0, 0, 64, 0).isnan().all()
    assert run("two_groups", 1, a, b, torch.empty(2, 64, 64))[1].isnan().all()


def test_wgmma_with_a_wrong_stride(run) -> None:
    """Twice the distance between groups of 8 columns of B: from the fifth on they lie outside."""
    a, b, _ = operands(64, torch.bfloat16, False, False)
    with pytest.raises(RuntimeError, match=r"reads 16 bytes at byte \d+ of the 16384 bytes of dynamic shared memory"):
        run("gemm", 3, a, b, torch.empty(64, 64), 3, 0, 0, 0, 64, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_clusters_read_each_others_shared_memory(run, emulator, schedule) -> None:
    x = torch.randn(64)
    with emulator.configured(schedule):
        out = run("exchange", 0, x, None, torch.empty(8, 64))
        torch.testing.assert_close(out, (10 * x).expand(8, 64))
        out = run("ring", 0, x, None, torch.empty(4, 64))
    assert torch.equal(out, torch.stack([x + (rank + 3) % 4 for rank in range(4)]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_load_for_every_block_of_a_cluster(run, emulator, schedule) -> None:
    x = torch.randn(3, 16, 32)
    with emulator.configured(schedule):
        out = run("shares", 0, x, None, torch.empty(2, 16, 32), 3)
    expected = x[0] + 2 * x[1] + 3 * x[2]
    torch.testing.assert_close(out, expected.expand(2, 16, 32))


# Which of two threads is caught depends on the schedule: the one that does not wait, or the one it did not wait for.
EARLY = "that an asynchronous copy is still on its way to: a wait is missing|race: "
LOAD = (40, 21, 0, 32, 10, 8, 4, 3)
STORE = (40, 21, 0, 12, 10, 0, 0, 0)
GEMM = (3, 0, 0, 0, 64, 0)


@pytest.mark.parametrize(
    ("kernel", "fault", "numbers", "message"),
    [
        ("load_2d", 1, LOAD, EARLY),
        ("load_2d", 2, LOAD, "deadlock|" + EARLY),
        (
            "load_2d",
            3,
            LOAD,
            r"deadlock.*\n  mbarrier .*: 64 threads wait for phase 0, which lacks 0 of 1 arrivals and 16 b",
        ),
        ("load_2d", 4, LOAD, EARLY),
        ("load_2d", 5, LOAD, "race: |there is no initialised mbarrier"),
        ("load_2d", 6, LOAD, EARLY),
        ("store_2d", 1, STORE, "tma_store reads shared memory that thread 0 wrote: fence_async_proxy is missing after"),
        ("store_2d", 2, STORE, "writes shared memory that an asynchronous operation still reads: a wait is missing"),
        ("store_2d", 3, STORE, "writes shared memory that an asynchronous operation still reads: a wait is missing"),
        ("store_2d", 4, STORE, "race: "),
        ("store_2d", 5, STORE, "writes shared memory that an asynchronous operation still reads: a wait is missing"),
        ("stages", 1, (640,), "mbarrier_arrive: more arrivals than the 1 of a phase|" + EARLY),
        ("stages", 2, (640,), r"deadlock.*\n  (named|mbarrier)"),
        ("stages", 3, (640,), EARLY),
        ("gemm", 1, GEMM, "wgmma: wgmma_fence is missing before"),
        (
            "gemm",
            4,
            GEMM,
            "wgmma reads shared memory that thread 0 wrote: fence_async_proxy is missing after the write",
        ),
        ("gemm", 5, GEMM, "writes shared memory that an asynchronous operation still reads: a wait is missing"),
        ("exchange", 1, (), r"race: reads byte \d+ of dynamic shared memory, written|race: writes .*, read by thread"),
        ("exchange", 2, (), r"reads shared memory of block \d of the cluster, which has ended"),
        ("ring", 1, (), EARLY),
        ("shares", 1, (3,), "mbarrier_arrive: more arrivals than the|" + EARLY),
        ("shares", 2, (3,), "deadlock|" + EARLY),
        ("shares", 3, (3,), "deadlock"),
        ("shares", 4, (3,), r"mbarrier_arrive: block \d of the cluster has ended"),
    ],
)
@pytest.mark.parametrize("schedule", ["forward", "reverse"])
def test_faults_are_found(run, emulator, kernel, fault, numbers, message, schedule) -> None:
    a = torch.randn(64, 64).bfloat16() if kernel == "gemm" else torch.randn(48, 32)
    b = torch.randn(64, 64).bfloat16()
    with emulator.configured(schedule), pytest.raises(RuntimeError, match=message):
        run(kernel, fault, a, b, torch.empty(64, 64), *numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((39, 21, 0, 32, 10, 0, 0, 3), "make_tensor_map: strides must be multiples of 16 bytes"),
        (
            (40, 21, 0, 48, 10, 0, 0, 3),
            "make_tensor_map: a row of the box must not be longer than the swizzle, got 192",
        ),
        ((40, 21, 0, 3, 10, 0, 0, 0), "make_tensor_map: a row of the box must be a multiple of 16 bytes, got 12"),
        ((40, 21, 0, 4, 300, 0, 0, 0), "make_tensor_map: a box must have 1 to 256 elements a dimension, got 300"),
    ],
)
def test_tensor_maps_that_the_driver_would_refuse(run, emulator, numbers, message) -> None:
    if emulator.real:
        pytest.skip("the driver says no more than that an argument is invalid")
    with pytest.raises(RuntimeError, match=message):
        run("load_2d", 0, torch.randn(21, 40), None, torch.empty(1), *numbers)


def test_clusters_need_hopper(run, emulator) -> None:
    if emulator.real:
        pytest.skip("this is Hopper")
    with emulator.configured(compute_capability=80), pytest.raises(RuntimeError, match="clusters of 4 blocks"):
        run("exchange", 0, torch.randn(64), None, torch.empty(8, 64))
