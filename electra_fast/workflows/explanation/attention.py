"""Where each head of each layer looks: the probabilities, which the fused op never keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def attention_probabilities(model: nn.Module, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
    """``softmax(q kᵀ/√D)`` of every head for one text, ``[layers, heads, S, S]``: row i is where token i looks.

    The model runs as it always does; what each layer's attention was given is caught on the way, and projected again.

    Args:
        model: of `electra_fast.models`, in evaluation mode. input_ids, token_type_ids: int64 ``[S]``.
    """
    caught: list[Tensor] = []

    def catch(layer: nn.Module, inputs: tuple) -> None:
        x = inputs[0].reshape(len(input_ids), -1)
        heads = layer.num_attention_heads
        q, k = (linear(x).unflatten(-1, (heads, -1)).transpose(0, 1) for linear in (layer.query, layer.key))
        caught.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1))

    hooks = [layer.attention.self.register_forward_pre_hook(catch) for layer in model.electra.encoder.layer]
    try:
        model(input_ids[None], token_type_ids=token_type_ids[None])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(caught)
