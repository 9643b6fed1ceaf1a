"""Every kernel compiles for GPUs that are not here, without spills and within their shared memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.compiles_only
HERE = Path(__file__).parent
TARGETS = ("sm_80", "sm_90", "gfx942")


def _run(*arguments: str) -> subprocess.CompletedProcess:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / "ahead_of_time.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.timeout(1800)  # a hundred kernels, a second or two each on a core of its own
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles(target: str) -> None:
    result = _run("--target", target, "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert {row["kernel"].split(".")[0] for row in rows} == {file.stem for file in (HERE / "calls").glob("*.py")}
    assert all(0 < row["registers"] <= (512 if target == "gfx942" else 255) for row in rows)
    documented = (HERE.parents[1] / "docs" / "triton-kernels.md").read_text()
    for row in rows:
        assert f"| {row['kernel']} | {row['call']} |" in documented, "docs/triton-kernels.md: print the table again"


def test_a_spill_and_too_much_shared_memory_fail() -> None:
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("ahead_of_time", {str(HERE / "ahead_of_time.py")!r})
module = sys.modules["ahead_of_time"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
row = dict(kernel="x.forward", call="base", target="gfx942", warps=4, registers=10)
for problem in module.problems([module.Row(**row, shared=65536, spills=0), module.Row(**row, shared=65537, spills=8)]):
    print(problem)
"""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines() == [
        "x.forward (base) for gfx942 spills 8 bytes a thread",
        "x.forward (base) for gfx942 asks for 65537 bytes of shared memory, a block can have 65536",
    ]
