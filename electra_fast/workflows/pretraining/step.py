"""One optimiser step of ELECTRA's pretraining, top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from electra_fast.data.batches import PackedBatch, PackedBatches
from electra_fast.data.shard_shuffle import ShardShuffledBatches
from electra_fast.models import ElectraPretrainingPair, PretrainingConfig, PretrainingOutput
from electra_fast.ops import MaskedTokens
from electra_fast.optim import ElectraAdam, clip_factor, global_norm, polynomial_schedule
from electra_fast.rng import advance_

from .metrics import RunningMetrics
from .parallel import is_spread, reducing
from .ranks import ALONE, Ranks

Update = Callable[["TrainingState", Sequence[PackedBatch]], tuple[Tensor, Tensor]]


@dataclass
class TrainingState:
    """All that a step reads and changes.

    Attributes:
        network: the pair, or what spreads it over several processes (`spread`).
        forward: the network, or the network compiled.
        learning_rate: float32 ``[]`` that the optimiser reads.
        rng: int64 ``[2]``: the seed, and the number of the next batch, counted from the run's beginning over all
            processes, which take turns. Masks, samples and dropout are a function of it, so that a resumed run draws
            what an uninterrupted one would have drawn, on however many devices.
        accumulation: batches that this process contributes to an optimiser step.
        autocast: bfloat16, or None for float32 throughout.
        ranks: the processes that share the step.
        update: `eager_update`, or the same as a graph (`graph.GraphedUpdate`).
        step: optimiser steps done.
    """

    pair: ElectraPretrainingPair
    network: nn.Module
    forward: Callable[..., PretrainingOutput]
    optimizer: ElectraAdam
    batches: PackedBatches | ShardShuffledBatches
    metrics: RunningMetrics
    learning_rate: Tensor
    rng: Tensor
    accumulation: int
    autocast: torch.dtype | None
    ranks: Ranks = ALONE
    update: Update = field(default_factory=lambda: eager_update)
    step: int = 0

    @property
    def recipe(self) -> PretrainingConfig:
        return self.pair.config.pretraining

    @property
    def device(self) -> torch.device:
        return self.rng.device


def training_step(state: TrainingState) -> tuple[Tensor, Tensor]:
    """Update the weights once; returns the loss and the gradients' norm before clipping, ``[]`` each, on the device.

    Shapes are static and nothing is read back by the host. Both losses are means over all batches of the step, on all
    processes, so that k processes of n batches each are the same as one of k·n batches, or of one batch as large.
    """
    recipe = state.recipe
    state.learning_rate.fill_(
        polynomial_schedule(
            state.step, recipe.learning_rate, recipe.warmup_steps, recipe.total_steps, recipe.decay_power
        )
    )
    state.pair.anneal(state.step)
    loss, norm = state.update(state, [read_batch(state) for _ in range(state.accumulation)])
    state.metrics.end_step(loss, norm)
    state.step += 1
    return loss, norm


def eager_update(state: TrainingState, batches: Sequence[PackedBatch]) -> tuple[Tensor, Tensor]:
    """`update` with the host's batches, kernel by kernel."""
    return update(state, [to_device(batch, state.device) for batch in batches])


def update(state: TrainingState, batches: Sequence[PackedBatch]) -> tuple[Tensor, Tensor]:
    """The device's part of a step: it reads and writes nothing of the host's, so that it can be recorded (`graph`)."""
    masked, normalizers = _masks_and_counts(state, batches)
    share = torch.zeros((), device=state.device)
    for number, (batch, masks) in enumerate(zip(batches, masked, strict=True), start=1):
        with reducing(state.network, last=number == len(batches)):
            output = forward(state, batch, normalizers, masks)
            (output.loss * state.ranks.size).backward()  # the gradients' mean over the processes is to be the sum
        share += output.loss.detach()
        state.metrics.update(output)
        advance_(state.rng, state.ranks.size)

    loss, norm = _totals(state, share)
    finite = loss.isfinite() & norm.isfinite()
    # A factor of NaN updates nothing: weights and moments outlive a step that is not finite.
    state.optimizer.step(grad_scale=torch.where(finite, clip_factor(norm, state.recipe.clip_norm), torch.nan))
    state.optimizer.zero_grad()
    return loss, norm


def forward(
    state: TrainingState,
    batch: PackedBatch,
    normalizers: tuple[Tensor, Tensor] | None = None,
    masked: MaskedTokens | None = None,
) -> PretrainingOutput:
    """Both losses of a batch on the device, its number being in ``state.rng``."""
    with autocast(state.device, state.autocast):
        return state.forward(
            batch.input_ids,
            batch.token_type_ids,
            batch.position_ids,
            batch.cu_seqlens,
            state.rng,
            max_seqlen=state.batches.max_seqlen,
            normalizers=normalizers,
            masked=masked,
        )


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Autocast to ``dtype``, or nothing if it is None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def read_batch(state: TrainingState) -> PackedBatch:
    """This process's next batch, counted, in the host's memory."""
    batch = next(state.batches)
    state.metrics.count(batch)
    return batch


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """The batch, on its way to the device."""
    return batch if device.type == "cpu" else batch.pin_memory().to(device, non_blocking=True)


def _masks_and_counts(
    state: TrainingState, batches: Sequence[PackedBatch]
) -> tuple[list[MaskedTokens | None], tuple[Tensor, Tensor] | None]:
    """The masks of all batches and what their losses are divided by: masked tokens and tokens of the whole step.

    One batch alone masks and counts for itself.
    """
    if len(batches) == 1 and state.ranks.size == 1:
        return [None], None
    rng = state.rng.clone()
    masked, predictions = [], torch.zeros((), dtype=torch.int64, device=state.device)
    for batch in batches:
        masked.append(state.pair.mask(batch.input_ids, batch.cu_seqlens, rng))
        predictions += state.pair.predictions(batch.input_ids, batch.cu_seqlens, masked[-1])
        advance_(rng, state.ranks.size)
    tokens = sum(batch.cu_seqlens[-1].long() for batch in batches)
    counts = state.ranks.sum_(torch.stack([predictions, tokens])).clamp(min=1)
    return masked, (counts[0], counts[1])


def _totals(state: TrainingState, share: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the gradients' norm of the step, from this process's share of the loss and what gradients it has."""
    norm = global_norm(state.optimizer.gradients())
    if state.ranks.size == 1:
        return share, norm
    sums = state.ranks.sum_(torch.stack([share, norm.square()]))
    return sums[0], sums[1].sqrt() if is_spread(state.network) else norm
