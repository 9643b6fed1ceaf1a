"""One joint ELECTRA pretraining step (masking, sampling, both losses, all gradients, clipping, optimiser update)
against a composition of transformers' parts.

    python benchmarks/bench_training_step.py                     # small, 16 x 128 tokens, float32 and bfloat16
    python benchmarks/bench_training_step.py --rounds 5 --allocator kept --record benchmarks/results/training_step.csv

Method: all variants have the same weights and see the same fresh random batch in every round, rounds are interleaved in
one process, times are medians with 20 % and 80 % quantiles; the losses of both sides are compared on equal inputs
before anything is timed. Peak memory is the highest resident size of a process of its own that does nothing but this
variant's steps, with the same allocator and threads, less what the imports take.
"""

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import torch
import transformers
from electra_fast._native import keep_freed_memory
from huggingface_joint import HuggingFaceJoint, choose_masked
from torch import Tensor

import electra_fast
from electra_fast.models import ElectraConfig, ElectraPretrainingPair
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, parameter_groups

VARIANTS = ("transformers fp32", "electra_fast fp32", "transformers bf16", "electra_fast bf16")
SPECIAL = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "mask_token_id": 103}


def build(size: str, dropout: float) -> tuple[ElectraPretrainingPair, HuggingFaceJoint]:
    """Both sides with the same weights."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = getattr(ElectraConfig, size)(**SPECIAL, **rates)
    pair = ElectraPretrainingPair(config)
    peer = HuggingFaceJoint(
        *(
            transformers.ElectraConfig.from_dict(network.to_huggingface_dict())
            for network in (config, config.generator())
        ),
        discriminator_weight=config.pretraining.discriminator_weight,
    )
    peer.generator.load_state_dict(pair.generator.state_dict())
    peer.discriminator.load_state_dict(pair.discriminator.state_dict())
    return pair, peer


def packed_shape(batch: int, length: int) -> Tensor:
    return torch.arange(batch + 1, dtype=torch.int32) * length


def random_batch(batch: int, length: int, vocabulary: int) -> Tensor:
    """Token ids as text has them: [CLS] first, [SEP] last, no padding."""
    ids = torch.randint(1000, vocabulary, (batch, length))
    ids[:, 0], ids[:, -1] = SPECIAL["cls_token_id"], SPECIAL["sep_token_id"]
    return ids


def check_equal(size: str, batch: int, length: int) -> float:
    """Relative difference of the joint losses on equal masks and samples, without dropout."""
    pair, peer = build(size, dropout=0.0)
    ids = random_batch(batch, length, pair.config.vocab_size)
    rng = torch.tensor([1, 0])
    cu_seqlens = packed_shape(batch, length)
    with torch.no_grad():
        ours = pair(ids.flatten(), cu_seqlens=cu_seqlens, rng=rng, max_seqlen=length)
        masked = pair.mask(ids.flatten(), cu_seqlens, rng)
        used = ours.targets != -100
        chosen = torch.zeros(ids.numel(), dtype=torch.bool).index_fill(0, ours.positions[used], True).view_as(ids)
        theirs = peer(ids, masked.input_ids.view_as(ids), chosen, torch.ones_like(ids), sampled=ours.sampled[used])
    difference = abs(ours.loss.item() - theirs.item()) / theirs.item()
    if difference > 1e-4:
        raise SystemExit(f"the two sides differ before timing: {ours.loss.item():.6f} and {theirs.item():.6f}")
    return difference


def our_step(pair: ElectraPretrainingPair, length: int, autocast: bool) -> Callable[[Tensor], None]:
    optimiser = ElectraAdam(parameter_groups(pair), lr=5e-4)
    pair.train()
    step = 0

    def run(ids: Tensor) -> None:
        nonlocal step
        rng = torch.tensor([0, step])
        step += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = pair(ids.flatten(), cu_seqlens=packed_shape(*ids.shape), rng=rng, max_seqlen=length).loss
        loss.backward()
        optimiser.step(grad_scale=clip_factor(global_norm(optimiser.gradients()), 1.0))
        optimiser.zero_grad(set_to_none=True)

    return run


def their_step(peer: HuggingFaceJoint, probability: float, autocast: bool) -> Callable[[Tensor], None]:
    optimiser = torch.optim.AdamW(peer.parameters(), lr=5e-4, weight_decay=0.01)
    special = torch.tensor(sorted(SPECIAL.values()))
    peer.train()

    def run(ids: Tensor) -> None:
        masked_ids, chosen = choose_masked(ids, special, probability, SPECIAL["mask_token_id"])
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = peer(ids, masked_ids, chosen, torch.ones_like(ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run


def make(variant: str, size: str, length: int) -> Callable[[Tensor], None]:
    torch.manual_seed(0)
    pair, peer = build(size, dropout=0.1)
    autocast = variant.endswith("bf16")
    return (
        our_step(pair, length, autocast)
        if variant.startswith("electra")
        else their_step(peer, pair.config.pretraining.mask_probability, autocast)
    )


def peak_memory(variant: str, options: argparse.Namespace) -> float:
    """MiB above what the imports take, in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--memory-of",
        variant,
        "--size",
        options.size,
        "--batch",
        str(options.batch),
        "--length",
        str(options.length),
        "--allocator",
        options.allocator,
        "--threads",
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["mebibytes"]


def peak_resident_kib() -> int:
    """Highest resident size of this process. Not ru_maxrss, which starts at what the parent had when it forked."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise SystemExit("peak memory is read from /proc/self/status, which this system does not have")


def measure_memory(variant: str, options: argparse.Namespace) -> None:
    before = peak_resident_kib()
    step = make(variant, options.size, options.length)
    vocabulary = getattr(ElectraConfig, options.size)().vocab_size
    for _ in range(3):
        step(random_batch(options.batch, options.length, vocabulary))
    print(json.dumps({"mebibytes": (peak_resident_kib() - before) / 1024}))


def commit() -> str:
    """Of the tree this file is in, marked where that has been changed since."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--allocator",
        choices=("default", "kept"),
        default="default",
        help="kept: freed memory stays mapped, for both sides",
    )
    parser.add_argument("--record", type=Path, help="append the rows to this CSV file")
    parser.add_argument(
        "--skip-memory", action="store_true", help="times only: peak memory takes a process for each variant"
    )
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    if options.allocator == "kept":
        keep_freed_memory()
    if options.memory_of:
        measure_memory(options.memory_of, options)
        return
    print(f"losses agree to {check_equal(options.size, options.batch, options.length):.1e} on equal inputs", flush=True)
    steps = {variant: make(variant, options.size, options.length) for variant in VARIANTS}
    vocabulary = getattr(ElectraConfig, options.size)().vocab_size
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for round_ in range(-2, options.rounds):  # two rounds of warm-up
        ids = random_batch(options.batch, options.length, vocabulary)
        for variant, step in steps.items():
            start = time.perf_counter()
            step(ids)
            if round_ >= 0:
                times[variant].append(time.perf_counter() - start)
        print(f"\rround {max(round_ + 1, 0)} of {options.rounds}", end="", flush=True)
    print()

    rows = []
    for variant in VARIANTS:
        low, high = statistics.quantiles(times[variant], n=5)[0], statistics.quantiles(times[variant], n=5)[-1]
        rows.append(
            {
                "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
                "commit": commit(),
                "device": f"{processor()}, {options.threads} threads",
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "electra_fast": electra_fast.__version__,
                "allocator": options.allocator,
                "model": options.size,
                "batch": options.batch,
                "length": options.length,
                "variant": variant,
                "median_ms": round(statistics.median(times[variant]) * 1e3, 1),
                "q20_ms": round(low * 1e3, 1),
                "q80_ms": round(high * 1e3, 1),
                "tokens_per_second": round(options.batch * options.length / statistics.median(times[variant])),
                "peak_memory_mib": math.nan if options.skip_memory else round(peak_memory(variant, options), 1),
            }
        )
    peer = {row["variant"].split()[1]: row for row in rows if row["variant"].startswith("transformers")}
    columns = ("median ms", "20 %", "80 %", "tokens/s", "speed", "peak MiB", "memory")
    print(f"{'variant':20}" + "".join(f"{column:>11}" for column in columns))
    for row in rows:
        base = peer[row["variant"].split()[1]]
        figures = (
            f"{row['median_ms']:.1f}",
            f"{row['q20_ms']:.1f}",
            f"{row['q80_ms']:.1f}",
            f"{row['tokens_per_second']}",
            f"{base['median_ms'] / row['median_ms']:.2f}x",
            f"{row['peak_memory_mib']:.0f}",
            f"{row['peak_memory_mib'] / base['peak_memory_mib']:.2f}x",
        )
        print(f"{row['variant']:20}" + "".join(f"{figure:>11}" for figure in figures))
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        new = not options.record.exists()
        with options.record.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            if new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
