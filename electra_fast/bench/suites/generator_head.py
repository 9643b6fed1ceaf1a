"""The generator's vocabulary: projection, cross-entropy and one exact sample a position, without logits in memory."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_fast import ops, rng
from electra_fast.bench.case import Case
from electra_fast.bench.peers import vocabulary

from .op import DTYPES, TOLERANCE, Function, compiled, contender, ours

VOCABULARY = 30522


def _torch(dropout: float) -> Function:
    def run(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = F.linear(hidden, weight, bias)
        sample = torch.multinomial(torch.softmax(logits.detach().float(), -1), 1)
        return F.cross_entropy(logits.float(), targets, reduction="none"), sample

    return run


def _ours(dropout: float) -> Function:
    states: dict[torch.device, Tensor] = {}

    def run(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        state = states.setdefault(hidden.device, rng.make(1, device=hidden.device))
        return tuple(ops.generator_head(hidden, weight, bias, targets, rng=state))

    return run


def _inputs(slots: int, width: int, dtype: torch.dtype, device: str, backward: bool) -> tuple:
    hidden = torch.randn(slots, width, device=device, dtype=dtype)
    weight = torch.randn(VOCABULARY, width, device=device, dtype=dtype) * 0.1
    made = [hidden, weight, torch.randn(VOCABULARY, device=device, dtype=dtype)]
    targets = torch.randint(VOCABULARY, (slots,), device=device)
    if not backward:
        return (*made, targets)
    return (*(x.requires_grad_() for x in made), targets, torch.full((slots,), 1.0 / slots, device=device))


def _select(result: object, inputs: tuple) -> list[Tensor]:
    """The loss, and gradients where there are any; a sample is not the same twice."""
    parts = result if isinstance(result, tuple) else (result,)
    return [part for part in parts if part.is_floating_point()]


def _case(slots: int, width: int, dtype: str, backward: bool, device: str, level: str) -> Case:
    direction = "forward+backward" if backward else "forward"
    return Case(
        suite="generator_head",
        name=f"{slots}x{width} {dtype} {direction}",
        dtype=dtype,
        contenders=(
            contender("torch", _torch, backward=backward, setting="linear, softmax + multinomial, cross_entropy"),
            *ours(_ours, device=device, backward=backward),
            compiled("torch.compile", _torch, backward=backward),
            *(contender(p.name, p.build, backward=backward, setting=p.setting) for p in vocabulary.peers(device)),
        ),
        inputs=lambda shared: _inputs(slots, width, DTYPES[dtype], device, backward),
        device=device,
        shape={"slots": slots, "width": width, "vocabulary": VOCABULARY, "direction": direction},
        flops=2.0 * slots * width * VOCABULARY * (3 if backward else 1),
        tokens=slots,
        tolerance=TOLERANCE[dtype] * 2,
        select=_select,
        level=level,
    )


def cases(device: str) -> list[Case]:
    """Slots of a step of small (16 × 128 and 128 × 128), and base's width."""
    shapes = ((9830, 128), (9830, 768)) if device.startswith("cuda") else ((320, 128), (2560, 128), (320, 768))
    found = []
    for (slots, width), dtype, backward in itertools.product(shapes, ("bfloat16", "float32"), (True, False)):
        first = (slots, width) == shapes[0]
        level = ("quick" if dtype == "bfloat16" else "default") if first and backward else "default"
        if not backward or (not first and dtype == "float32"):
            level = "full"
        found.append(_case(slots, width, dtype, backward, device, level))
    return found
