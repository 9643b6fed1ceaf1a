"""The generator's output layer: masked-language-model loss and one sample a slot, logits never stored whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from electra_fast.rng import fresh

from . import backend, checks


class GeneratorOutput(NamedTuple):
    """Per slot ``[P]``: loss (float32, differentiable), one sampled id, and the most likely id."""

    loss: Tensor
    sampled: Tensor
    predicted: Tensor


def generator_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    disallow_correct: bool = False,
    rng: Tensor | None = None,
    site: int = 0,
) -> GeneratorOutput:
    """``logits = hidden weightᵀ + bias``; per slot ``loss = logsumexp(logits) - logits[target]``, a sample, the argmax.

    Args:
        hidden: ``[P, K]``, float32, bfloat16, float16 or float64; weight: ``[V, K]``, hidden's dtype or float32. Under
            autocast both are cast to its dtype (the weight's gradient comes back in its own).
        bias: ``[V]``, hidden's dtype or float32.
        targets: int64 ``[P]``; -100: an unused slot, with loss 0, sample 0, prediction 0.
        temperature: of the sample, drawn from ``softmax(logits / temperature)``; the loss is taken at 1.
        disallow_correct: never sample the target.
        rng: int64 ``[2]`` = (seed, step), drawn from torch's generator when absent; site: counter of this place.

    Returns: `GeneratorOutput`; loss in float32 (float64 for float64). No gradient flows through the sample. Saved for
    backward: hidden, weight, bias, targets and the log-sum-exp ``[P]``.

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape, device, temperature or site and, on the CPU, for
    a target outside the vocabulary.

    Source: Clark et al. 2020, section 2; the sampler is Gumbel-max over groups (docs/design.md, Random numbers).
    """
    op = "generator_head"
    checks.check(op, "hidden", hidden, checks.FLOATS, (None, None))
    checks.check(op, "weight", weight, checks.FLOATS, (None, hidden.shape[1]), hidden)
    if (cast := checks.autocast_dtype(hidden)) is not None:
        hidden, weight = hidden.to(cast), weight.to(cast)
    checks.check(op, "weight", weight, checks.parameter_dtypes(hidden))
    if weight.shape[0] == 0:
        raise ValueError(f"{op}: weight must have at least one row, got {list(weight.shape)}")
    checks.check(op, "bias", bias, checks.parameter_dtypes(hidden), (weight.shape[0],), hidden)
    checks.check(op, "targets", targets, checks.INT64, (hidden.shape[0],), hidden)
    checks.check_rng(op, rng, site, hidden)
    if not temperature > 0.0:
        raise ValueError(f"{op}: temperature must be greater than 0, got {temperature}")
    if rng is None:
        rng = fresh(hidden.device)
    args = (hidden, weight, bias, targets, temperature, disallow_correct, rng, site)
    loss, sampled, predicted, _ = backend.run(op, args, hidden.device, hidden.dtype)
    return GeneratorOutput(loss, sampled, predicted)


def _fake(hidden, weight, bias, targets, temperature, disallow_correct, rng, site):
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    slots = hidden.shape[0]
    loss = hidden.new_empty(slots, dtype=dtype)
    return loss, targets.new_empty(slots), targets.new_empty(slots), loss.new_empty(slots)


def _backward_fake(grad, hidden, weight, bias, targets, lse):
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(inputs: tuple, outputs: tuple) -> tuple[tuple, tuple]:
    hidden, weight, bias, targets, *_ = inputs
    return (hidden, weight, bias, targets, outputs[-1]), ()


def _backward(derivative, grad: Tensor, tensors: tuple, values: tuple) -> tuple[Tensor, Tensor, Tensor]:
    return derivative(grad, *tensors)


backend.register(
    "generator_head",
    _fake,
    backward_fake=_backward_fake,
    differentiable=slice(0, 3),
    save=_save,
    backward=_backward,
)
