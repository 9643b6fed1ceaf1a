"""One optimiser step of ELECTRA's pretraining, top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from electra_fast.data.batches import PackedBatch, PackedBatches
from electra_fast.models import ElectraPretrainingPair, PretrainingConfig, PretrainingOutput
from electra_fast.ops import MaskedTokens
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, polynomial_schedule
from electra_fast.rng import advance_

from .metrics import RunningMetrics


@dataclass
class TrainingState:
    """All that a step reads and changes.

    Attributes:
        forward: the pair itself, or the pair compiled.
        learning_rate: float32 ``[]`` that the optimiser reads.
        rng: int64 ``[2]``: the seed, and the number of batches processed so far. Masks, samples and dropout are a
            function of it, so that a resumed run draws what an uninterrupted one would have drawn.
        accumulation: batches in an optimiser step.
        autocast: bfloat16, or None for float32 throughout.
        step: optimiser steps done.
    """

    pair: ElectraPretrainingPair
    forward: Callable[..., PretrainingOutput]
    optimizer: ElectraAdam
    batches: PackedBatches
    metrics: RunningMetrics
    learning_rate: Tensor
    rng: Tensor
    accumulation: int
    autocast: torch.dtype | None
    step: int = 0

    @property
    def recipe(self) -> PretrainingConfig:
        return self.pair.config.pretraining

    @property
    def device(self) -> torch.device:
        return self.rng.device


def training_step(state: TrainingState) -> tuple[Tensor, Tensor]:
    """Update the weights once; returns the loss and the gradients' norm before clipping, ``[]`` each, on the device.

    Shapes are static and nothing is read back by the host. Both losses are means over all batches of the step, so that
    accumulating over k batches is the same as one batch k times as large.
    """
    recipe = state.recipe
    state.learning_rate.fill_(
        polynomial_schedule(
            state.step, recipe.learning_rate, recipe.warmup_steps, recipe.total_steps, recipe.decay_power
        )
    )
    state.pair.anneal(state.step)
    batches = [_next(state) for _ in range(state.accumulation)]
    masked, normalizers = _masks_and_counts(state, batches)
    loss = torch.zeros((), device=state.device)
    for batch, masks in zip(batches, masked, strict=True):
        with autocast(state.device, state.autocast):
            output = state.forward(
                batch.input_ids,
                batch.token_type_ids,
                batch.position_ids,
                batch.cu_seqlens,
                state.rng,
                max_seqlen=state.batches.max_seqlen,
                normalizers=normalizers,
                masked=masks,
            )
        output.loss.backward()
        loss += output.loss.detach()
        state.metrics.update(output)
        advance_(state.rng)

    norm = global_norm(state.optimizer.gradients())
    state.optimizer.step(grad_scale=clip_factor(norm, recipe.clip_norm))
    state.optimizer.zero_grad()
    state.metrics.end_step(loss, norm)
    state.step += 1
    return loss, norm


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Autocast to ``dtype``, or nothing if it is None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _next(state: TrainingState) -> PackedBatch:
    batch = next(state.batches)
    state.metrics.count(batch)
    return batch if state.device.type == "cpu" else batch.pin_memory().to(state.device, non_blocking=True)


def _masks_and_counts(
    state: TrainingState, batches: list[PackedBatch]
) -> tuple[list[MaskedTokens | None], tuple[Tensor, float] | None]:
    """The masks of all batches and what their losses are divided by: masked tokens and tokens of the whole step.

    One batch alone masks and counts for itself.
    """
    if len(batches) == 1:
        return [None], None
    rng = state.rng.clone()
    masked, predictions = [], torch.zeros((), dtype=torch.int64, device=state.device)
    for batch in batches:
        masked.append(state.pair.mask(batch.input_ids, batch.cu_seqlens, rng))
        predictions += state.pair.predictions(batch.input_ids, batch.cu_seqlens, masked[-1])
        advance_(rng)
    return masked, (predictions.clamp(min=1), float(max(1, sum(batch.tokens for batch in batches))))
