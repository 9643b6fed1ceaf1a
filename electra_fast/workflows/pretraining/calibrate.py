"""How fast a step is on this machine, measured once before a run, for ``precision = "auto"`` and for ``max_time``.

What comes of it is written into the run's configuration and checkpoints. The run itself, its learning rates included,
is a function of those alone and never looks at a clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from dataclasses import dataclass

import torch

from electra_fast.data.manifest import Corpus
from electra_fast.models import ElectraConfig

from .build import AUTOCAST, batch_tokens, build
from .evaluate import Evaluation
from .options import PretrainOptions, parse_duration
from .step import TrainingState, training_step

_WARM_UP_STEPS = 2
_MINIMUM_STEPS = 3
_SECONDS = 2.0
_SHARE = 0.02  # of max_time, for each measurement
_RESERVE = 0.92  # of max_time is planned: checkpoints, start and end take their part, and machines do not run evenly
_WORTH = 0.95  # bf16 is taken if a step takes less than this part of fp32's time


@dataclass(frozen=True)
class Plan:
    """What was decided: ``precision`` (fp32 or bf16), ``total_steps`` (None: the configuration's), and why."""

    precision: str
    total_steps: int | None
    reasons: list[str]


def plan(options: PretrainOptions, config: ElectraConfig, corpus: Corpus, device: torch.device) -> Plan:
    """Decide what ``precision = "auto"`` and ``max_time`` mean here; measures only where one of them is asked for."""
    began = time.perf_counter()
    limit = None if options.max_time is None else parse_duration(options.max_time)
    budget = _SECONDS if limit is None else max(_SECONDS, limit * _SHARE)
    precision, reasons, seconds = options.precision, [], {}

    def measure(precision: str) -> float:
        if precision not in seconds:
            seconds[precision] = step_seconds(options, config, corpus, device, precision, budget)
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
        evaluation = evaluation_seconds(options, config, corpus, device, precision)
        left = limit * _RESERVE - (time.perf_counter() - began) - evaluation
        each = step + (evaluation / options.eval_every if options.eval_every else 0.0)
        total_steps = max(1, math.floor(left / each))
        reasons.append(f"{total_steps:,} steps in about {limit:.0f} s: a step takes {step * 1e3:.0f} ms")
    return Plan(precision, total_steps, reasons)


def step_seconds(
    options: PretrainOptions,
    config: ElectraConfig,
    corpus: Corpus,
    device: torch.device,
    precision: str,
    budget: float,
) -> float:
    """Mean seconds of a training step, of a run made for the purpose and thrown away, in about ``budget`` seconds."""
    state = build(dataclasses.replace(options, precision=precision), config, corpus, device)
    with state.batches:
        for _ in range(_WARM_UP_STEPS):
            training_step(state)
        _wait(device)
        began = time.perf_counter()
        for steps in itertools.count(1):
            training_step(state)
            if steps >= _MINIMUM_STEPS and time.perf_counter() - began >= budget:
                break
        _wait(device)
        return (time.perf_counter() - began) / steps


def evaluation_seconds(
    options: PretrainOptions, config: ElectraConfig, corpus: Corpus, device: torch.device, precision: str
) -> float:
    """Seconds of one held-out evaluation, from a single batch of it."""
    tokens = batch_tokens(config, options.accumulation)
    whole, one = (Evaluation(corpus, tokens, batches) for batches in (options.eval_batches, 1))
    if not whole:
        return 0.0
    state: TrainingState = build(dataclasses.replace(options, precision=precision), config, corpus, device)
    with state.batches:
        one.run(state.pair, AUTOCAST[precision])
        began = time.perf_counter()
        one.run(state.pair, AUTOCAST[precision])
        return (time.perf_counter() - began) * len(whole.batches)


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
