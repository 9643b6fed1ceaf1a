"""What a checkpoint holds of a run, and the run put back to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from electra_fast.errors import CheckpointError

from .checkpoint import TENSORS
from .parallel import copy_whole_, is_spread
from .sharded import read_sharded
from .step import TrainingState


def state_dict(state: TrainingState) -> dict[str, Any]:
    """All of a run that its options do not fix, as tensors and plain values; a call of all processes."""
    if is_spread(state.network):
        networks = {TENSORS: _tensors(state)}
    else:
        networks = {"model": state.pair.state_dict(), "optimizer": state.optimizer.state_dict()}
    return {
        **networks,
        "data": state.batches.state_dict(),
        "metrics": state.ranks.gather(state.metrics.state_dict()),
        "rng": state.rng.cpu() - torch.tensor([0, state.ranks.rank]),
    }


def load_state_dict(state: TrainingState, saved: dict[str, Any]) -> None:
    """Put a run back to where `state_dict` was taken.

    Raises:
        CheckpointError: the checkpoint is of another network or other data.
    """
    if TENSORS in saved:
        read_sharded(saved[TENSORS], _tensors(state), state.ranks)
    else:
        _load_whole(state, saved["model"], saved["optimizer"])
    state.batches.load_state_dict(saved["data"])
    _load_metrics(state, saved["metrics"])
    state.rng.copy_(saved["rng"] + torch.tensor([0, state.ranks.rank]))
    state.step = saved["step"]


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """Weights and both moments under names of their own, as this process holds them."""
    tensors = {}
    for name, p in state.pair.named_parameters():
        tensors[f"weights.{name}"] = p.detach()
        for slot, moment in state.optimizer.moments(p).items():
            tensors[f"{slot}.{name}"] = moment
    return tensors


def _load_whole(state: TrainingState, model: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
    """Weights and moments from the state dicts of a run that had them whole."""
    try:
        if not is_spread(state.network):
            state.pair.load_state_dict(model)
            state.optimizer.load_state_dict(optimizer)
        else:
            places = [p for group in state.optimizer.param_groups for p in group["params"]]
            numbers = {id(p): number for number, p in enumerate(places)}
            for name, p in state.pair.named_parameters():
                copy_whole_(p.detach(), model[name])
                for slot, moment in state.optimizer.moments(p).items():
                    copy_whole_(moment, optimizer["state"][numbers[id(p)]][slot])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint is not of this network: {reason}") from None
    for group in state.optimizer.param_groups:
        group["lr"] = state.learning_rate


def _load_metrics(state: TrainingState, saved: list[dict[str, Any]]) -> None:
    """To each process what it had counted; if their number is another now, all to the first."""
    if len(saved) == state.ranks.size:
        state.metrics.load_state_dict(saved[state.ranks.rank])
    elif state.ranks.first:
        state.metrics.load_state_dict(*saved)
