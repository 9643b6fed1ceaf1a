"""`electra-fast serve` against FastAPI around a `transformers` pipeline: requests/s, latency, memory.

    python benchmarks/bench_serving.py --checkpoint runs/small/model/discriminator --texts sentences.txt
    python benchmarks/bench_serving.py --model runs/sentiment/best --texts sentences.txt --servers ours,pipeline-bf16

One run, and in it for every server: a process for the server, a process for the load (load_generator.py), 1, 8 and 64
clients that each ask again as soon as they are answered, with texts of TEXTS (a line each, in a shuffled order that is
the same for all). Servers run one after the other, ``--rounds`` times, and every figure is printed and appended to the
records. The speed of a classifier does not depend on what it has learned: with ``--checkpoint`` the head is random.

    ours                 electra-fast serve, precision auto        ours-fp32, ours-bf16, ours-int8: the named one
    pipeline-fp32        pipeline_server.py, a text a request      pipeline-bf16: in bfloat16

``--inputs 16`` sends 16 texts a request; the pipeline gets them as one batch. Memory is the server's resident size
after the load, in MiB. The load generator runs on the same cores as the servers; what it takes is in the last column.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
OURS, PIPELINE = "ours", "pipeline"


def make_classifier(checkpoint: str, directory: Path) -> None:
    """A fine-tuned directory with a random head."""
    import torch

    from electra_fast.data.hygiene import HygienePolicy
    from electra_fast.workflows.finetuning.checkpoint import load_tokenizer, resolve
    from electra_fast.workflows.finetuning.model_directory import save_model
    from electra_fast.workflows.finetuning.tasks.classification import Classification

    torch.manual_seed(0)
    found = resolve(checkpoint)
    tokenizer = load_tokenizer(found)
    longest = min(512, tokenizer.model_max_length)
    task = Classification(max_length=longest, problem="single", labels=("bad", "good"))
    save_model(directory, task, task.model(found), tokenizer, HygienePolicy(), {})


def command(server: str, model: Path, port: int) -> list[str]:
    """How a server is started."""
    kind, _, precision = server.partition("-")
    if kind == OURS:
        return [sys.executable, "-m", "electra_fast", "serve", str(model), "--port", str(port), "--precision",
                precision or "auto"]  # fmt: skip
    return [sys.executable, str(HERE / "pipeline_server.py"), str(model), "--port", str(port), "--precision", precision]


@contextlib.contextmanager
def running(arguments: list[str], port: int, said: int | IO[bytes] = subprocess.DEVNULL) -> Iterator[subprocess.Popen]:
    """A server, once it answers; ended by SIGTERM if it still runs. What it prints goes to ``said``."""
    process = subprocess.Popen(arguments, stdout=said)
    try:
        for _ in range(600):
            if process.poll() is not None:
                sys.exit(f"{' '.join(arguments)} ended with {process.returncode}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                break
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def processor_seconds(pid: int) -> float:
    """CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, bodies: Path, clients: int, seconds: float) -> dict:
    """Figures of one load, from a process of its own."""
    arguments = [sys.executable, str(HERE / "load_generator.py"), "--port", str(port), "--bodies", str(bodies)]
    arguments += ["--clients", str(clients), "--seconds", str(seconds)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="fine-tuned directory of a classification")
    parser.add_argument("--checkpoint", help="instead: any ELECTRA, which gets a random head")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--servers", default="ours,pipeline-fp32,pipeline-bf16")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--inputs", type=int, default=1, help="texts a request")
    parser.add_argument("--seconds", type=float, default=6.0, help="of load, for each number of clients")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--records", type=Path, help="file of JSON lines to append to")
    given = parser.parse_args()
    if (given.model is None) == (given.checkpoint is None):
        parser.error("give either --model or --checkpoint")
    with tempfile.TemporaryDirectory() as scratch:
        model = given.model
        if model is None:
            model = Path(scratch) / "model"
            make_classifier(given.checkpoint, model)
        texts = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        random.Random(0).shuffle(texts)
        groups = [texts[i : i + given.inputs] for i in range(0, len(texts), given.inputs)]
        bodies = Path(scratch) / "bodies.jsonl"
        inputs = [group[0] if given.inputs == 1 else group for group in groups]
        bodies.write_text("".join(json.dumps({"inputs": each}) + "\n" for each in inputs))
        print(
            f"{'server':14} {'clients':>7} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'MiB':>6} {'CPU':>5}"
            "  generator, answers"
        )
        for _ in range(given.rounds):
            for server in given.servers.split(","):
                one_server(server, model, bodies, given)


def one_server(server: str, model: Path, bodies: Path, given: argparse.Namespace) -> None:
    """All loads on one server."""
    with running(command(server, model, given.port), given.port) as process:
        measure(given.port, bodies, 4, 1.5)  # warm
        for clients in map(int, given.clients.split(",")):
            before = processor_seconds(process.pid)
            found = measure(given.port, bodies, clients, given.seconds)
            found["cpu"] = (processor_seconds(process.pid) - before) / given.seconds
            found["resident_mib"] = resident(process.pid)
            shown = [found[name] for name in ("requests_per_second", "p50_ms", "p99_ms", "resident_mib", "cpu")]
            print(
                "{:14} {:7} {:8.1f} {:8.1f} {:8.1f} {:6.0f} {:5.2f}".format(server, clients, *shown),
                f" {found['generator_cpu_us']:.0f} µs, {found['statuses']}",
                flush=True,
            )
            if given.records is not None:
                what = {"server": server, "clients": clients, "inputs": given.inputs, "texts": given.texts.name}
                when = datetime.now(timezone.utc).isoformat(timespec="seconds")
                with open(given.records, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"date": when, **what, "cores": os.cpu_count(), **found}) + "\n")


if __name__ == "__main__":
    main()
