"""pytest-benchmark over the cases of a suite: a file says ``SUITE = "attention"`` and takes ``case`` and ``contender``.

    pytest benchmarks/bench_attention.py                       # the default selection, on a GPU if there is one
    pytest benchmarks/bench_attention.py --level quick --device cpu -k "S=128 and electra-fast"

Only contenders that agree with the first of their case are timed. For ratios use `electra-fast bench`: it interleaves
the contenders, pytest-benchmark times them one after another.
"""

from __future__ import annotations

import pytest
import torch

from electra_fast.bench import suites
from electra_fast.bench.case import LEVELS, Absent, relative_error
from electra_fast.bench.worker import draw


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("electra-fast")
    group.addoption("--level", choices=LEVELS, default="default", help="the selection of cases")
    group.addoption("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = getattr(metafunc.module, "SUITE", None)
    if suite is None or "contender" not in metafunc.fixturenames:
        return
    device = metafunc.config.getoption("--device")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = suites.cases(suite, device, metafunc.config.getoption("--level"))
    pairs = [(case, contender) for case in cases for contender in case.contenders if not contender.allocator]
    metafunc.parametrize(("case", "contender"), pairs, ids=[f"{a.name}-{b.name}" for a, b in pairs])


@pytest.fixture
def timed(benchmark, case, contender):
    """Check the contender against the case's first one, then time it on fresh inputs."""

    def measure() -> None:
        torch.manual_seed(0)
        shared = case.setup()
        (inputs,) = draw(case, shared, 0, 1)
        outputs = []
        try:
            for each in dict.fromkeys((case.contenders[0].name, contender.name)):
                chosen = next(c for c in case.contenders if c.name == each)
                call = (chosen.comparable or chosen.make)(shared)
                torch.manual_seed(0)
                outputs.append([t.detach().clone() for t in case.outputs(call(*inputs), inputs)])
            run = contender.make(shared)
        except Absent as reason:
            pytest.skip(str(reason))
        limit = case.tolerance if contender.tolerance is None else contender.tolerance
        error = relative_error(outputs[-1], outputs[0])
        assert error <= limit, f"{contender.name} is {error:.1e} from {case.contenders[0].name}"

        def synchronised(*fresh: object) -> None:
            run(*fresh)
            if case.device.startswith("cuda"):
                torch.cuda.synchronize()

        benchmark.group = f"{case.suite}: {case.name}"
        benchmark.extra_info.update(error=error, setting=contender.setting, flops=case.flops, bytes=case.bytes)
        # pedantic: each round has inputs of its own, made outside of the clock
        benchmark.pedantic(synchronised, setup=lambda: (case.inputs(shared), {}), rounds=7, warmup_rounds=2)

    return measure
