"""A suite of toy contenders, that can be run by its name, also in a process of its own, and rows made by hand."""

import sys
import types
from pathlib import Path

import pytest

from electra_fast import bench
from electra_fast.bench.records import Row


@pytest.fixture
def row():
    """Make a measured row; keywords replace what is usual."""

    def make(contender: str = "torch", median: float = 2.0, **changes) -> Row:
        usual = {
            "run": "r1",
            "suite": "gelu",
            "case": "8x4 float32 forward",
            "contender": contender,
            "dtype": "float32",
            "shape": {"rows": 8, "columns": 4},
            "ours": contender.startswith("electra-fast"),
            "median_ms": median,
            "q20_ms": median * 0.9,
            "q80_ms": median * 1.2,
            "minimum_ms": median * 0.8,
            "rounds": 5,
            "calls": 3,
            "bound": "copy",
            "gbytes": 10.0,
            "share": 0.5,
            "tokens_per_second": 1000 / median,
            "peak_memory_mib": 4.0 * median,
            "device": "cpu",
        }
        return Row(**{**usual, **changes})

    return make


@pytest.fixture
def facts() -> dict:
    """Of a run."""
    return {
        "device": "Test CPU <2>",
        "cores": 2,
        "threads": 2,
        "capability": "avx2",
        "versions": {"torch": "2.13.0"},
        "commit": "abc1234",
        "date": "2026-01-02T03:04:05Z",
        "clock_mhz": 2000.0,
        "load_average": 0.5,
        "roof": {"copy": 20.0, "matrix": {"float32": 100.0}, "how": {"float32": "torch 1024³"}},
    }


@pytest.fixture
def toy(monkeypatch):
    """Put ``cases`` in as the suite "toy"."""

    def put(cases) -> None:
        module = types.ModuleType("electra_fast.bench.suites.toy", "Toys to time.\n\nMore about them.")
        module.cases = cases
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for place in (bench, sys.modules.get("electra_fast.bench.suites", bench)):
            monkeypatch.setattr(place, "SUITES", (*bench.SUITES, "toy"))

    return put


@pytest.fixture
def root() -> Path:
    """Of the repository."""
    return Path(__file__).parents[2]
