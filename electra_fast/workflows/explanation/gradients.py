"""Integrated gradients (Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", equation 1).

With ``F`` a number that the model makes of the tokens' word embeddings ``x``, and ``b`` a baseline that says nothing,
token ``t`` is given

    a_t = (x_t - b_t) · ∫₀¹ ∂F/∂x_t (b + α (x - b)) dα

Completeness, the paper's axiom: ``Σ a_t = F(x) - F(b)``. What a sum over finitely many α misses of that is the
residual. Gauss-Legendre points are used, whose error falls much faster with their number than that of equal steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

_TABLE = "electra.embeddings.word_embeddings.weight"
_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class Attribution:
    """What each token did for a number.

    Attributes:
        scores: one a token, in the unit of the number; positive where the token raised it.
        at_input, at_baseline: the number for the text, and for the baseline.
        steps: points of the integral.
    """

    scores: list[float]
    at_input: float
    at_baseline: float
    steps: int

    @property
    def difference(self) -> float:
        """What the scores have to add up to."""
        return self.at_input - self.at_baseline

    @property
    def residual(self) -> float:
        """What they miss of it."""
        return self.difference - sum(self.scores)

    def is_complete(self, tolerance: float) -> bool:
        """Whether the residual is at most ``tolerance`` of the difference (of 1, where that is smaller)."""
        return abs(self.residual) <= tolerance * max(1.0, abs(self.difference))


def integrated_gradients(
    model: nn.Module,
    input_ids: Tensor,
    token_type_ids: Tensor,
    baseline_ids: Tensor,
    number: Callable[[tuple], Tensor],
    *,
    steps: int = 32,
    tolerance: float = 1e-3,
    most_steps: int = 512,
) -> Attribution:
    """Attribute a number to the tokens of one text.

    Args:
        model: of `electra_fast.models`, in evaluation mode, in float32 or float64.
        input_ids, token_type_ids: int64 ``[S]``.
        baseline_ids: int64 ``[S]``: tokens that stand for "nothing here". Where they are those of the text, as for
            [CLS] and [SEP], the score is 0.
        number: the model's output for a batch of B texts to ``[B]``.
        steps: points of the integral; doubled until `Attribution.is_complete`, or ``most_steps``.
    """
    table = model.get_parameter(_TABLE).detach()
    text, baseline = table[input_ids], table[baseline_ids]
    run = _Rows(model, token_type_ids, number)
    with torch.no_grad():
        at_input, at_baseline = (run(rows[None]).item() for rows in (text, baseline))
    while True:
        points, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(steps))
        gradient = _mean_gradient(run, baseline, text, (points + 1) / 2, weights / 2)
        scores = ((text - baseline).double() * gradient).sum(-1)
        found = Attribution(scores.tolist(), at_input, at_baseline, steps)
        if found.is_complete(tolerance) or 2 * steps > most_steps:
            return found
        steps *= 2


class _Rows:
    """``[B, S, E]`` word embeddings to the number ``[B]``: the model looks up row ``i`` where token ``i`` stands."""

    def __init__(self, model: nn.Module, token_type_ids: Tensor, number: Callable[[tuple], Tensor]) -> None:
        self.model, self.token_type_ids, self.number = model, token_type_ids, number
        # Row padding_idx gets no gradient, so that the rows begin behind it.
        padding = model.electra.embeddings.word_embeddings.padding_idx
        self.first = 0 if padding is None else padding + 1

    def __call__(self, rows: Tensor) -> Tensor:
        batch, length, width = rows.shape
        table = torch.cat([rows.new_zeros(self.first, width), rows.flatten(0, 1)])
        ids = torch.arange(self.first, len(table), device=rows.device).view(batch, length)
        types = self.token_type_ids.expand(batch, length)
        return self.number(functional_call(self.model, {_TABLE: table}, (ids,), {"token_type_ids": types}))


def _mean_gradient(run: _Rows, baseline: Tensor, text: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """``Σ w_k ∂F/∂x (b + α_k (x - b))``, ``[S, E]`` in float64."""
    total = torch.zeros_like(text, dtype=torch.float64)
    together = max(1, _TOKENS_AT_ONCE // len(text))
    for alpha, weight in zip(points.split(together), weights.split(together), strict=True):
        share = alpha.to(text)[:, None, None]
        rows = (baseline + share * (text - baseline)).requires_grad_()
        (gradient,) = torch.autograd.grad(run(rows) @ weight.to(rows), rows)
        total += gradient.double().sum(0)
    return total
