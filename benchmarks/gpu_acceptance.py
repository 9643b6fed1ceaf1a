"""Everything that a GPU has to say about this package, in one command and under ten minutes: build, tests, sanitizer,
benchmarks. Each step's output goes to a file of its own in OUT, what came of it to OUT/summary.json.

    make gpu-acceptance OUT=directory            # or: python benchmarks/gpu_acceptance.py --out directory
    make sanitize                                # the steps build and sanitize only

Needs torch with CUDA, nvcc, cmake, ninja, scikit-build-core, pybind11 and pytest; no network. The package is installed
into build/gpu-site, not into the environment. A step that runs out of its time is stopped and counts as failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu-site"


@dataclass(frozen=True)
class Task:
    """A process: its name, command, and how many seconds it may take."""

    name: str
    command: list[str]
    seconds: int


@dataclass
class Result:
    """``code`` is the exit status; 124 if it was stopped; None if it could not be started, ``note`` saying why."""

    name: str
    code: int | None
    seconds: float
    note: str = ""


def environment() -> dict[str, str]:
    """Of all steps: what was built is found first, the sources beside it are not."""
    cores = str(os.cpu_count() or 4)
    settings = {
        "PYTHONPATH": str(SITE),
        "PYTHONSAFEPATH": "1",
        "CMAKE_BUILD_PARALLEL_LEVEL": cores,
        "ELECTRA_CUDA": "ON",
    }
    return {**os.environ, **settings}


def start(task: Task, out: Path, extra: dict[str, str]) -> subprocess.Popen:
    log = (out / f"{task.name}.log").open("w")
    log.write(f"$ {' '.join(task.command)}\n")
    log.flush()
    return subprocess.Popen(
        task.command, cwd=ROOT, env={**environment(), **extra}, stdout=log, stderr=subprocess.STDOUT
    )


def together(tasks: list[Task], out: Path, **extra: str) -> list[Result]:
    """Run tasks side by side."""
    begin = time.monotonic()
    running = [(task, start(task, out, extra)) for task in tasks]
    results = []
    for task, process in running:
        try:
            code = process.wait(max(0.0, begin + task.seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = 124
        lines = (out / f"{task.name}.log").read_text(errors="replace").splitlines()
        results.append(Result(task.name, code, round(time.monotonic() - begin, 1), lines[-1] if lines else ""))
        print(f"{task.name}: {'ok' if code == 0 else f'failed ({code})'}: {results[-1].note}", flush=True)
    return results


def describe(out: Path) -> dict[str, str]:
    """The machine and the versions; also in OUT/machine.json."""
    script = (
        "import json, torch; p = torch.cuda.get_device_properties(0);"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'device': p.name,"
        " 'capability': f'{p.major}.{p.minor}', 'multiprocessors': p.multi_processor_count}))"
    )

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
        except FileNotFoundError:
            return "not there"

    machine = {"python": platform.python_version(), "cores": str(os.cpu_count())}
    machine |= json.loads(said(sys.executable, "-c", script) or '{"device": "none"}')
    machine["driver"] = said(
        "nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"
    )
    machine["nvcc"] = said("nvcc", "--version").splitlines()[-1]
    machine["commit"] = os.environ.get("ELECTRA_COMMIT") or said("git", "rev-parse", "--short", "HEAD") or "unknown"
    (out / "machine.json").write_text(json.dumps(machine, indent=2))
    return machine


def build(out: Path) -> list[Result]:
    shutil.rmtree(SITE, ignore_errors=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(SITE),
    ]
    return together([Task("build", [*pip, str(ROOT)], 200)], out, PYTHONPATH="")


def tests(out: Path) -> list[Result]:
    pytest = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider"]
    groups = {
        "tests-attention": ["tests/ops/test_attention.py", "tests/cuda/test_attention.py"],
        "tests-generator-head": ["tests/ops/test_generator_head.py", "tests/cuda/test_generator_head.py"],
        "tests-ops": ["tests/ops", "--ignore=tests/ops/test_attention.py", "--ignore=tests/ops/test_generator_head.py"],
        "tests-kernels": [
            *("tests/cuda", "--ignore=tests/cuda/test_attention.py", "--ignore=tests/cuda/test_generator_head.py"),
            *("--ignore=tests/cuda/test_compile.py", "--ignore=tests/cuda/test_on_gpu.py"),
            "--ignore=tests/cuda/test_graph_on_gpu.py",
        ],
        "tests-triton": ["tests/triton_kernels"],
        "tests-rest": ["tests/nn", "tests/models", "tests/native", "tests/test_backends.py", "tests/test_optim.py"],
    }
    tasks = [Task(name, [*pytest, *paths], 200) for name, paths in groups.items()]
    # Graphs, streams and the hundred runs have the GPU for themselves.
    return [
        *together(tasks, out),
        *together(
            [Task("tests-on-gpu", [*pytest, "tests/cuda/test_on_gpu.py", "tests/cuda/test_graph_on_gpu.py"], 150)], out
        ),
    ]


def sanitize(out: Path) -> list[Result]:
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    names = ("sanitize-memcheck", "sanitize-racecheck")
    if not Path(program).exists():
        note = "compute-sanitizer is not installed"
        print(f"sanitize: failed: {note}", flush=True)
        return [Result(name, None, 0.0, note) for name in names]
    calls = [sys.executable, "tests/cuda/small_calls.py"]
    kernels = ["--kernel-name", "kernel_substring=electra", "--error-exitcode", "9"]
    tasks = [
        Task(names[0], [program, "--tool", "memcheck", *kernels, *calls], 150),
        Task(names[1], [program, "--tool", "racecheck", *kernels, *calls], 150),
    ]
    # Every tensor has an allocation of its own, so that leaving it is noticed.
    return together(tasks, out, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def benchmarks(out: Path) -> list[Result]:
    results = []
    for path, seconds in (("bench_cuda_ops.py", 120), ("bench_cuda_step.py", 180)):
        command = [sys.executable, f"benchmarks/{path}", "--record", str(out / f"{Path(path).stem}.csv")]
        results += together([Task(Path(path).stem, [*command, "--seconds", str(seconds - 15)], seconds)], out)
    return results


STEPS = {"build": build, "tests": tests, "sanitize": sanitize, "benchmarks": benchmarks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-acceptance", help="where the results go")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="in this order")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    machine = describe(options.out)
    if machine["device"] == "none":
        print("error: torch finds no GPU here", file=sys.stderr)
        return 2
    print(f"{machine['device']}, torch {machine['torch']}, commit {machine['commit']}", flush=True)
    results: list[Result] = []
    for step in options.steps:
        results += STEPS[step](options.out)
        summary = {"machine": machine, "results": [asdict(r) for r in results]}
        (options.out / "summary.json").write_text(json.dumps(summary, indent=2))
        if step == "build" and results[-1].code != 0:
            return 1
    return 0 if all(r.code == 0 for r in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
