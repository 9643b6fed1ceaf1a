"""How fast a step is on this machine, measured once before a run, for ``precision = "auto"`` and for ``max_time``.

What comes of it is written into the run's configuration and checkpoints. The run itself, its learning rates included,
is a function of those alone and never looks at a clock.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from electra_fast.data.manifest import Corpus
from electra_fast.models import ElectraConfig

from .build import AUTOCAST, batch_tokens, build
from .evaluate import Evaluation
from .options import PretrainOptions, parse_duration
from .step import TrainingState, training_step

_WARM_UP_STEPS = 2
_SECONDS = 2.0
_SHARE = 0.02  # of max_time, for each measurement
_PROBE_TOKENS = 4096  # a larger step is measured in a part of this size: base's on a CPU takes minutes
_RESERVE = 0.92  # of max_time is planned: checkpoints, start and end take their part, and machines do not run evenly
_WORTH = 0.95  # bf16 is taken if a step takes less than this part of fp32's time


@dataclass(frozen=True)
class Plan:
    """What was decided: ``precision`` (fp32 or bf16), ``total_steps`` (None: the configuration's), and why."""

    precision: str
    total_steps: int | None
    reasons: list[str]


def plan(
    options: PretrainOptions,
    config: ElectraConfig,
    corpus: Corpus,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
    processes: int = 1,
) -> Plan:
    """Decide what ``precision = "auto"`` and ``max_time`` mean here; measures only where one of them is asked for.

    Args:
        say: is told before a measurement.
        processes: that share a step. Each measures its own work beside the others; what they send each other is not
            measured.
    """
    began = time.perf_counter()
    limit = None if options.max_time is None else parse_duration(options.max_time)
    budget = _SECONDS if limit is None else max(_SECONDS, limit * _SHARE)
    precision, reasons, seconds = options.precision, [], {}

    def measure(precision: str) -> float:
        if precision not in seconds:
            say(f"measuring a training step in {precision} …")
            seconds[precision] = step_seconds(options, config, corpus, device, precision, budget) / processes
        return seconds[precision]

    if precision == "auto":
        missing = why_no_bf16(device)
        if missing is not None:
            precision = "fp32"
            reasons.append(f"precision fp32: {missing}")
        else:
            faster = measure("bf16") < _WORTH * measure("fp32")
            precision = "bf16" if faster else "fp32"
            times = f"a step takes {seconds['bf16'] * 1e3:.0f} ms in bf16 and {seconds['fp32'] * 1e3:.0f} ms in fp32"
            reasons.append(f"precision {precision}: {times}")
    total_steps = None
    if limit is not None:
        step = measure(precision)
        evaluation = evaluation_seconds(options, config, corpus, device, precision) / processes
        left = limit * _RESERVE - (time.perf_counter() - began) - evaluation
        each = step + (evaluation / options.eval_every if options.eval_every else 0.0)
        total_steps = max(1, math.floor(left / each))
        reasons.append(f"{total_steps:,} steps in about {limit:.0f} s: a step takes {step * 1e3:.0f} ms")
    elif precision in seconds:
        recipe = config.pretraining
        whole = spoken(seconds[precision] * recipe.total_steps)
        tokens = recipe.batch_size * recipe.sequence_length
        reasons.append(f"{recipe.total_steps:,} steps of {tokens:,} tokens are going to take about {whole}")
    return Plan(precision, total_steps, reasons)


def spoken(seconds: float) -> str:
    """A duration in the unit that fits it: "40 seconds", "2.5 hours", "12 days"."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


def step_seconds(
    options: PretrainOptions,
    config: ElectraConfig,
    corpus: Corpus,
    device: torch.device,
    precision: str,
    budget: float,
) -> float:
    """Mean seconds of a training step, of a run made for the purpose and thrown away.

    Takes about ``budget`` seconds, or one step if that is longer. The time of a large step is that of a part of it
    times its share.
    """
    probe, share = _probe(config, options.parts)
    options = dataclasses.replace(options, precision=precision, accumulation=1, ranks=1)
    state = build(options, probe, corpus, device)
    times: list[float] = []
    with state.batches:
        while sum(times) < budget:
            began = time.perf_counter()
            training_step(state)
            _wait(device)
            times.append(time.perf_counter() - began)
    settled = times[_WARM_UP_STEPS:] or times[-1:]
    return sum(settled) / len(settled) * share


def evaluation_seconds(
    options: PretrainOptions, config: ElectraConfig, corpus: Corpus, device: torch.device, precision: str
) -> float:
    """Seconds of one held-out evaluation, from a single batch of it, or a part of one."""
    probe, share = _probe(config, options.parts)
    whole = Evaluation(corpus, batch_tokens(config, options.parts), options.eval_batches)
    one = Evaluation(corpus, batch_tokens(probe, 1), 1)
    if not whole:
        return 0.0
    share /= options.parts  # an evaluation's batch is a part of a step
    options = dataclasses.replace(options, precision=precision, accumulation=1, ranks=1)
    state: TrainingState = build(options, probe, corpus, device)
    with state.batches:
        one.run(state.pair, AUTOCAST[precision])
        began = time.perf_counter()
        one.run(state.pair, AUTOCAST[precision])
        return (time.perf_counter() - began) * share * len(whole.batches)


def _probe(config: ElectraConfig, parts: int) -> tuple[ElectraConfig, float]:
    """What is measured instead of a whole step, and how many times that the step is."""
    recipe = config.pretraining
    batch = recipe.batch_size // parts
    batch = min(batch, max(1, _PROBE_TOKENS // recipe.sequence_length))
    return config.replace(batch_size=batch), recipe.batch_size / batch


def why_no_bf16(device: torch.device) -> str | None:
    """None where the hardware multiplies bfloat16 matrices faster than float32, else why not."""
    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported(including_emulation=False) else "this GPU has no bfloat16 units"
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    return "this CPU has neither avx512_bf16 nor amx"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
