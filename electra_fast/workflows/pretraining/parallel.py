"""How the pair is spread over the processes of a run, all of torch's making.

| parallel | weights | gradients, moments | a step sends and receives, in sizes of the weights |
|---|---|---|---|
| ddp  | whole | whole | 2: gradients are summed (DistributedDataParallel) |
| zero | parts; whole from the forward to the backward pass | parts | 2: weights gathered once, gradients scattered |
| fsdp | parts; a layer at a time is whole | parts | 3: weights gathered in both passes, gradients scattered |

The last two are FSDP2's ``fully_shard``, each layer and the rest a unit; ZeRO (Rajbhandari et al. 2020) calls them
stages 2 and 3. All give the same sums but for rounding.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from electra_fast.models import ElectraPretrainingPair
from electra_fast.nn.encoder import EncoderLayer

from .ranks import Ranks


def spread(pair: ElectraPretrainingPair, ranks: Ranks, parallel: str) -> nn.Module:
    """The module to call in the pair's place, which is changed in place for fsdp and zero; one process changes nothing.

    Gradients become the mean over the processes: scale the loss by their number to have the sum.
    """
    if ranks.size == 1:
        return pair
    if parallel == "ddp":
        constants = [name for name, _ in pair.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(pair, constants)
        return DistributedDataParallel(pair, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    device = pair.special_ids.device.type
    mesh = init_device_mesh(device, (ranks.size,))
    for layer in [module for module in pair.modules() if isinstance(module, EncoderLayer)]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=parallel == "fsdp")
    fully_shard(pair, mesh=mesh, reshard_after_forward=False)  # the rest, embeddings and heads, is used at both ends
    if device == "cpu":  # gloo adds, but takes no means
        for module in pair.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
    return pair


def reducing(network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """For the passes of one batch: gradients stay where they are until those of the step's ``last`` batch are added."""
    if isinstance(network, DistributedDataParallel):
        return contextlib.nullcontext() if last else network.no_sync()
    if is_spread(network):
        network.set_requires_gradient_sync(last)
        network.set_is_last_backward(last)
    return contextlib.nullcontext()


def is_spread(network: nn.Module) -> bool:
    """Whether each process holds a part of every gradient and moment (fsdp, zero), not all of them."""
    return hasattr(network, "set_requires_gradient_sync")


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts that other processes hold, if they do: then all must ask at the same time."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole_pair(pair: ElectraPretrainingPair) -> ElectraPretrainingPair:
    """The pair itself, or, if its weights are spread, one on the CPU that has all of them; a call of all processes."""
    if not is_spread(pair):
        return pair
    copy = ElectraPretrainingPair(pair.config, pair.word_starts)
    with torch.no_grad():
        for mine, parts in zip(copy.parameters(), pair.parameters(), strict=True):
            mine.copy_(whole(parts))
    return copy


def copy_whole_(mine: Tensor, tensor: Tensor) -> None:
    """Set a tensor, or the part of it that this process holds, from a whole one that all have."""
    if hasattr(mine, "to_local"):
        from torch.distributed.tensor import distribute_tensor

        if mine.shape != tensor.shape:
            raise ValueError(f"expected shape {list(mine.shape)}, got {list(tensor.shape)}")
        device = mine.to_local().device
        tensor = distribute_tensor(tensor.to(device), mine.device_mesh, mine.placements, src_data_rank=None)
    mine.copy_(tensor)
