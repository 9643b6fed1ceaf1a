"""The optimiser's update of all parameters of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from electra_fast import ops
from electra_fast.bench.case import Absent, Case, Contender
from electra_fast.models import ElectraConfig, ElectraModel

BETA1, BETA2, EPS, DECAY, RATE = 0.9, 0.999, 1e-6, 0.01, 5e-4
_SETTLED = 1e6  # steps after which torch's bias correction is 1: then both formulas are the same

COUNTS = {"small": 13_483_008, "base": 108_891_648}

Lists = list[list[Tensor]]


def _state(shared: list[Tensor]) -> Lists:
    """Parameters, first and second moments."""
    g = torch.Generator(shared[0].device).manual_seed(0)

    def made(p: Tensor) -> Tensor:
        return torch.rand(p.shape, generator=g, device=p.device) * 0.1

    return [[p.clone() for p in shared], [made(p) for p in shared], [made(p) for p in shared]]


def _ours(shared: list[Tensor]) -> Callable[..., Any]:
    params, mean, square = _state(shared)
    rate, one = torch.tensor(RATE, device=shared[0].device), torch.ones((), device=shared[0].device)
    options = {"weight_decay": [DECAY] * len(params), "learning_rate": rate, "grad_scale": one}

    def run(*grads: Tensor) -> list[Tensor]:
        ops.adam_(params, list(grads), mean, square, **options, beta1=BETA1, beta2=BETA2, eps=EPS)
        return params

    return run


def _torch(**options: bool) -> Callable[[list[Tensor]], Callable[..., Any]]:
    """`torch.optim.AdamW` in the state in which its formula is ours."""

    def make(shared: list[Tensor]) -> Callable[..., Any]:
        params, mean, square = _state(shared)
        optimiser = torch.optim.AdamW(params, lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, **options)
        for p, m, v in zip(params, mean, square, strict=True):
            optimiser.state[p] = {
                "step": torch.tensor(_SETTLED, device=_device(p, options)),
                "exp_avg": m,
                "exp_avg_sq": v,
            }

        def run(*grads: Tensor) -> list[Tensor]:
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimiser.step()
            return params

        return run

    return make


def _device(p: Tensor, options: dict[str, bool]) -> torch.device:
    return p.device if options.get("fused") else torch.device("cpu")


def _apex(shared: list[Tensor]) -> Callable[..., Any]:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise Absent(f"apex is not installed ({error})") from None
    params, mean, square = _state(shared)
    optimiser = FusedAdam(params, lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, bias_correction=False)
    for p, m, v in zip(params, mean, square, strict=True):
        optimiser.state[p] = {"exp_avg": m, "exp_avg_sq": v}

    def run(*grads: Tensor) -> list[Tensor]:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimiser.step()
        return params

    return run


def _parameters(size: str, device: str) -> list[Tensor]:
    torch.manual_seed(0)
    return [p.detach().to(device) for p in ElectraModel(getattr(ElectraConfig, size)()).parameters()]


def cases(device: str) -> list[Case]:
    """All parameters of small and of base, float32."""
    found = []
    for size, level in (("small", "quick"), ("base", "default" if device.startswith("cuda") else "full")):
        count = COUNTS[size]
        found.append(
            Case(
                suite="adam",
                name=f"{size} float32",
                dtype="float32",
                contenders=(
                    Contender("torch AdamW", _torch(foreach=True), "foreach=True"),
                    Contender("electra-fast", _ours, "one call", ours=True),
                    Contender("torch AdamW fused", _torch(fused=True), "fused=True"),
                    *([Contender("apex FusedAdam", _apex, "no bias correction")] if device.startswith("cuda") else []),
                ),
                setup=lambda s=size: _parameters(s, device),
                inputs=lambda shared: tuple(torch.randn_like(p) * 0.01 for p in shared),
                device=device,
                shape={"size": size, "parameters": count},
                bytes=28.0 * count,  # gradient read; parameter and two moments read and written
                level=level,
            )
        )
    return found
