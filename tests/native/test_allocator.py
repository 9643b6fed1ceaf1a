"""keep_freed_memory: large buffers freed and made again cost no page faults. Process-wide, hence the subprocess."""

from __future__ import annotations

import subprocess
import sys

import pytest

native = pytest.importorskip("electra_fast._native", reason="the native library is not built")

PROGRAM = """
import resource, sys
import torch
from electra_fast import _native

if sys.argv[1] == "keep":
    print(_native.keep_freed_memory())
for step in range(20):
    if step == 15:  # glibc's aligned allocation needs up to eight blocks before it finds its own leavings again
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 << 20)  # 40 MiB: 10240 pages, above every threshold that glibc adapts to
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(mode: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, text=True)
    return run.stdout.split()


def test_repeated_buffers_fault_once() -> None:
    kept, faults = _run("keep")
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert int(faults) < 1000
    assert int(_run("default")[0]) > 10 * int(faults)
