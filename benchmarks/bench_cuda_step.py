"""One joint ELECTRA pretraining step on a GPU (masking, sampling, both losses, all gradients, clipping, update): ours,
eager and replayed as a graph, on CUDA kernels and on Triton's alone, against transformers (sdpa, torch.compile, fused
AdamW) where it is installed, and against our own reference in plain PyTorch, compiled.

    python benchmarks/bench_cuda_step.py --record benchmarks/results/h200-step.csv

bfloat16 autocast, packed batches without padding, dropout 0.1. The variants are interleaved; medians of all rounds.
MFU is the step's products (electra_fast/models/flops.py) over the fastest product measured in the same run. At the end
it says which of the goals are met: small at 128 × 128 in at most 6 ms and in half of transformers' time, base at 512
with an MFU of at least 50 % and 1.5 times as fast as transformers.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.matrix_peak import matrix_peak
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.models.flops import step_flops
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, parameter_groups

SPECIAL = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "mask_token_id": 103}
SHAPES = {"small": (128, 128), "base": (64, 512)}  # sequences, length
OURS, THEIRS = "native in a graph", "transformers compiled"
COLUMNS = [
    "size",
    "batch",
    "length",
    "variant",
    "ms",
    "ms_20",
    "ms_80",
    "tokens_per_second",
    "mfu",
    "peak_memory_mb",
    "device",
]

Step = Callable[[Tensor], None]


def batch(size: str) -> Tensor:
    ids = torch.randint(1000, 30522, SHAPES[size], device="cuda")
    ids[:, 0], ids[:, -1] = SPECIAL["cls_token_id"], SPECIAL["sep_token_id"]
    return ids


def our_step(size: str, backend: str, compiled: bool) -> Step:
    torch.manual_seed(0)
    pair = ElectraPretrainingPair(getattr(ElectraConfig, size)(**SPECIAL)).cuda().train()
    optimiser = ElectraAdam(parameter_groups(pair), lr=5e-4)
    state = rng.make(0, device="cuda")
    count, length = SHAPES[size]
    cu_seqlens = torch.arange(count + 1, device="cuda", dtype=torch.int32) * length
    forward = torch.compile(pair) if compiled else pair

    def step(ids: Tensor) -> None:
        rng.advance_(state)
        with ops.use_backend(backend):
            with torch.autocast("cuda", torch.bfloat16):
                loss = forward(ids.flatten(), cu_seqlens=cu_seqlens, rng=state, max_seqlen=length).loss
            loss.backward()
            optimiser.step(grad_scale=clip_factor(global_norm(optimiser.gradients()), 1.0))
        optimiser.zero_grad(set_to_none=True)

    return step


def in_a_graph(step: Step, ids: Tensor) -> Step:
    static, side = ids.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(static)

    def replay(fresh: Tensor) -> None:
        static.copy_(fresh)
        graph.replay()

    return replay


def their_step(size: str) -> Step:
    import transformers

    from electra_fast.bench.peers.joint import HuggingFaceJoint
    from electra_fast.bench.peers.masking import choose_masked

    torch.manual_seed(0)
    config = getattr(ElectraConfig, size)(**SPECIAL)
    networks = [transformers.ElectraConfig.from_dict(c.to_huggingface_dict()) for c in (config, config.generator())]
    peer = HuggingFaceJoint(*networks, discriminator_weight=config.pretraining.discriminator_weight).cuda().train()
    optimiser = torch.optim.AdamW(peer.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
    special = torch.tensor(sorted(SPECIAL.values()), device="cuda")
    forward = torch.compile(peer)

    def step(ids: Tensor) -> None:
        masked, positions = choose_masked(ids, special, config.pretraining.mask_probability, SPECIAL["mask_token_id"])
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(ids, masked, positions, torch.ones_like(ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def variants(size: str) -> dict[str, Step]:
    """Those that run here; why another does not is printed."""
    makers: dict[str, Callable[[], Step]] = {
        "native": lambda: our_step(size, "native", False),
        OURS: lambda: in_a_graph(our_step(size, "native", False), batch(size)),
        "native compiled": lambda: our_step(size, "native", True),
        "triton": lambda: our_step(size, "triton", False),
        "triton in a graph": lambda: in_a_graph(our_step(size, "triton", False), batch(size)),
        "reference compiled": lambda: our_step(size, "reference", True),
    }
    if importlib.util.find_spec("transformers"):
        makers[THEIRS] = lambda: their_step(size)
    steps = {}
    for name, make in makers.items():
        try:
            step = make()
            for _ in range(3):
                step(batch(size))
            torch.cuda.synchronize()
        except Exception as error:
            print(
                f"  {name}: cannot run: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                flush=True,
            )
            continue
        steps[name] = step
    return steps


def timed(step: Step, ids: Tensor) -> tuple[float, float]:
    """Milliseconds, and megabytes at most."""
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step(ids)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3, torch.cuda.max_memory_allocated() / 1e6


def goals(medians: dict[str, dict[str, float]], mfu: dict[str, float]) -> list[tuple[str, bool | None]]:
    """What is to be reached, and whether it is; None where something that it needs did not run."""
    ours, theirs = ({size: m.get(name, math.nan) for size, m in medians.items()} for name in (OURS, THEIRS))
    checks = (
        ("small: at most 6 ms a step", 6.0 - ours.get("small", math.nan)),
        (
            "small: at least 2 times as fast as transformers",
            theirs.get("small", math.nan) / ours.get("small", math.nan) - 2,
        ),
        ("base: MFU of at least 50 %", mfu.get("base", math.nan) - 0.5),
        ("base: at least 1.5 times as fast", theirs.get("base", math.nan) / ours.get("base", math.nan) - 1.5),
    )
    return [(what, None if math.isnan(margin) else margin >= 0) for what, margin in checks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="CSV to write")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start nothing new after this long")
    options = parser.parse_args()
    begin, rows = time.monotonic(), []
    peak = matrix_peak(torch.device("cuda"), torch.bfloat16, seconds=2.0)
    print(peak, flush=True)
    medians: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    for size, (count, length) in SHAPES.items():
        print(f"{size}, {count} x {length}", flush=True)
        steps = variants(size)
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            if time.monotonic() - begin > options.seconds:
                break
            for name, step in steps.items():
                samples[name].append(timed(step, batch(size)))
        for name, taken in samples.items():
            if len(taken) < 2:
                continue
            times = [t for t, _ in taken]
            cuts, median = statistics.quantiles(times, n=5), statistics.median(times)
            rate, memory = count * length / median * 1e3, max(m for _, m in taken)
            flops = step_flops(getattr(ElectraConfig, size)(), count * length, count * length**2)
            mfu = flops / (median / 1e3) / peak.flops
            medians.setdefault(size, {})[name] = median
            if name == OURS:
                shares[size] = mfu
            shown = f"{median:8.2f} ms  {rate:10.0f} tokens/s  MFU {mfu:6.1%}  {memory:8.0f} MB"
            print(f"  {name:22} {shown}", flush=True)
            numbers = [f"{x:.4f}" for x in (median, cuts[0], cuts[3])]
            rows.append(
                [
                    size,
                    count,
                    length,
                    name,
                    *numbers,
                    f"{rate:.0f}",
                    f"{mfu:.4f}",
                    f"{memory:.0f}",
                    torch.cuda.get_device_name(),
                ]
            )
        if options.record:
            with options.record.open("w", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *rows])
        if time.monotonic() - begin > options.seconds:
            print("out of time", flush=True)
            break
    for what, reached in goals(medians, shares):
        print(f"{what}: {'not measured' if reached is None else 'yes' if reached else 'no'}", flush=True)


if __name__ == "__main__":
    main()
