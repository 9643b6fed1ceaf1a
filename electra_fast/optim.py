"""ELECTRA's optimiser, learning-rate schedule and gradient clipping.

Source: google-research/electra ``model/optimization.py``. The optimiser and schedule differ from ``torch.optim.AdamW``
with a linear warm-up in ways that matter while warming up: no bias correction, eps outside the root, and a decay that
runs from the first step on, together with the warm-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from electra_fast.ops import backend

_UNDECAYED = re.compile(r"LayerNorm|layer_norm|bias")


def parameter_groups(module: nn.Module, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """Two groups for an optimiser: decayed parameters, and those whose name says LayerNorm, layer_norm or bias.

    Embedding tables and projections are decayed, as in google-research/electra. A parameter that several modules share
    is listed once; parameters that need no gradient are left out.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if not _UNDECAYED.search(name)]
    rest = [p for name, p in named if _UNDECAYED.search(name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def polynomial_schedule(step: int, peak: float, warmup: int, total: int, power: float = 1.0) -> float:
    """Learning rate of update ``step`` (from 0): ``peak · (1 - step/total)^power · min(1, step/warmup)``.

    Decay and warm-up run at the same time, so the rate is 0 at step 0 (an update that only fills the moments) and never
    quite reaches the peak. From ``total`` on it is 0. ``warmup`` 0 means none.
    """
    decay = max(0.0, 1.0 - step / total) ** power
    return peak * decay * (min(1.0, step / warmup) if warmup > 0 else 1.0)


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all gradients taken as one vector, float32 ``[]`` on their device; no synchronisation."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients), 2, dtype=torch.float32)))


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """What to scale gradients by so that their norm is at most ``max_norm``: ``max_norm / max(norm, max_norm)``.

    Hand it to `ElectraAdam.step`, which multiplies while it reads the gradients. NaN and infinite norms give NaN and 0.
    """
    return max_norm / norm.clamp(min=max_norm)


class ElectraAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decay decoupled and times the learning rate, one fused call for all.

    ``m ← β1 m + (1-β1) g·c; v ← β2 v + (1-β2) (g·c)²; p ← p - lr (m/(√v + eps) + weight_decay·p)``, c: grad_scale.

    Args:
        params: parameters or groups of them (`parameter_groups`), float32 or float64. They are the master weights:
            train in bfloat16 through ``torch.autocast``.
        lr: learning rate, a float or a float tensor ``[]`` that may change between steps. Groups that share the value
            are updated together.
        betas, eps, weight_decay: as in the formula.

    State: ``exp_avg`` (m) and ``exp_avg_sq`` (v), of each parameter's shape and dtype. Parameters may be DTensors
    (FSDP2): the update is element by element, so that each process updates its part.

    Raises:
        ValueError: a hyperparameter out of range, or parameters of another dtype.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        if not isinstance(lr, Tensor) and lr < 0:
            raise ValueError(f"ElectraAdam: lr must be at least 0, got {lr}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"ElectraAdam: betas must be in [0, 1), got {betas}")
        if eps <= 0:
            raise ValueError(f"ElectraAdam: eps must be positive, got {eps}")
        if weight_decay < 0:
            raise ValueError(f"ElectraAdam: weight_decay must be at least 0, got {weight_decay}")
        self._plan: list[_Call] | None = None
        self._planned_for: tuple = ()
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._plan = None
        for p in self.param_groups[-1]["params"]:
            if p.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"ElectraAdam: parameters must be float32 or float64, got {p.dtype}: keep float32 weights and run "
                    "the model under torch.autocast"
                )
            if not p.is_contiguous():
                raise ValueError(f"ElectraAdam: parameters must be contiguous, got strides {p.stride()}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # also called by load_state_dict: the moments are new tensors
        self._plan = None

    def gradients(self) -> list[Tensor]:
        """The gradients there are, in the order of the groups; of DTensors, this process's part."""
        return [_local(p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        """``exp_avg`` and ``exp_avg_sq`` of a parameter, the tensors themselves; zeros before the first step, and none
        of a parameter that is not updated."""
        self._calls()
        return self.state.get(parameter, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None, *, grad_scale: Tensor | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place.

        Args:
            closure: evaluates the model again and returns the loss; rarely needed.
            grad_scale: float tensor ``[]`` that multiplies every gradient (`clip_factor`); 1 if None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for call in self._calls():
            call.run(grad_scale)
        return loss

    def _calls(self) -> list[_Call]:
        """The fused calls of a step, made anew only when the groups have changed."""
        keys = [
            (id(group["lr"]) if isinstance(group["lr"], Tensor) else group["lr"], group["betas"], group["eps"])
            for group in self.param_groups
        ]
        groups_like = [keys.index(key) for key in keys]
        planned_for = tuple(
            (like, group["betas"], group["eps"], group["weight_decay"])
            for like, group in zip(groups_like, self.param_groups, strict=True)
        )
        if self._plan is None or planned_for != self._planned_for:
            calls: dict[tuple, _Call] = {}
            for like, group in zip(groups_like, self.param_groups, strict=True):
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["exp_avg"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
                        state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
                    key = (like, p.device, p.dtype)
                    if key not in calls:
                        calls[key] = _Call(group)
                    calls[key].add(p, state["exp_avg"], state["exp_avg_sq"], group["weight_decay"])
            self._plan, self._planned_for = list(calls.values()), planned_for
        return self._plan


class _Call:
    """The parameters that one fused call updates, with what does not change from step to step."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.group = group
        self.params: list[Tensor] = []
        self.updated: list[Tensor] = []  # this process's parts of them, where they are DTensors
        self.exp_avg: list[Tensor] = []
        self.exp_avg_sq: list[Tensor] = []
        self.weight_decay: list[float] = []
        self._rate = self._one = torch.empty(0)

    def add(self, p: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, weight_decay: float) -> None:
        if not self.params:
            self._rate, self._one = (torch.ones((), dtype=p.dtype, device=p.device) for _ in range(2))
        self.params.append(p)
        self.updated.append(_local(p))
        self.exp_avg.append(_local(exp_avg))
        self.exp_avg_sq.append(_local(exp_avg_sq))
        self.weight_decay.append(weight_decay)

    def run(self, grad_scale: Tensor | None) -> None:
        grads = [p.grad for p in self.params]
        lists = (self.updated, grads, self.exp_avg, self.exp_avg_sq, self.weight_decay)
        if any(grad is None for grad in grads):
            present = [i for i, grad in enumerate(grads) if grad is not None]
            lists = tuple([values[i] for i in present] for values in lists)
        rate = self.group["lr"]
        if not isinstance(rate, Tensor):
            rate = self._rate.fill_(rate)
        for name, scalar in (("lr", rate), ("grad_scale", grad_scale)):
            if scalar is not None and scalar.device != self._one.device:
                raise ValueError(
                    f"ElectraAdam: {name} must be on {self._one.device} like the parameters, got {scalar.device}"
                )
        # Not through ops.adam_, whose checks of every tensor take a millisecond a step: parameters were checked when
        # they were added, and autograd gives gradients of their shape and dtype.
        scale = self._one if grad_scale is None else grad_scale
        params, grads, exp_avg, exp_avg_sq, weight_decay = lists
        grads = [_local(grad).contiguous() for grad in grads]
        args = (params, grads, exp_avg, exp_avg_sq, weight_decay, rate, scale, *self.group["betas"], self.group["eps"])
        if params:
            backend.run("adam", args, params[0].device, params[0].dtype)
            torch.autograd.graph.increment_version((*params, *exp_avg, *exp_avg_sq))


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, sharing its memory; another tensor itself."""
    if type(tensor) is Tensor or not hasattr(tensor, "to_local"):  # the first is much the quicker to ask
        return tensor
    return tensor.to_local()
