"""Native kernels of the instruction sets below the machine's best: accuracy and random bits, tested again on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from electra_fast.ops import native

CAPABILITIES = ("baseline", "avx2", "avx512", "avx512_bf16")
TESTS = "native and ((matches and bfloat16) or bits or follow or formula)"


@pytest.mark.parametrize("capability", CAPABILITIES[:-1])
def test_lower_capability(capability: str) -> None:
    if native.error is not None:
        pytest.skip(native.error)
    from electra_fast import _native

    best = _native.build_info()["hardware_capability"]
    if CAPABILITIES.index(capability) >= CAPABILITIES.index(best):
        pytest.skip(f"{capability} is not below this machine's {best}: the other tests ran on it, or nothing can")
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", str(folder), "-q", "-x", "-p", "no:cacheprovider", "-k", TESTS]
    environment = {**os.environ, "ELECTRA_CPU_CAPABILITY": capability}
    environment.pop("PYTEST_XDIST_WORKER", None)
    result = subprocess.run(
        [*command, "--import-mode=importlib"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=folder,  # not the root: the source tree must not hide what is installed
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout
