"""An encoder's layers packed for inference on the CPU: when they can be, and whether they are still up to date."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from electra_fast.ops.encoder import LayerParameters, PackedLayers, encoder, encoder_missing, pack_layers

from .linear import is_plain

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Packed:
    """Packed layers, and a watch over everything that they were made of: objects and their versions, hooks."""

    def __init__(self, layers: Sequence[nn.Module], products: torch.dtype, projection: nn.Module | None) -> None:
        from electra_fast._native import Watch

        parts = [*layers] if projection is None else [*layers, projection]
        modules = [module for part in parts for module in part.modules()]
        members = [
            (held, name, value)
            for module in modules
            for held in (module._modules, module._parameters)
            for name, value in held.items()
        ]
        self.products = products
        self.projection = projection
        hooks = [getattr(module, name) for module in modules for name in _HOOKS]
        parameters = [p for part in parts for p in part.parameters()]
        self.watch = Watch(members, hooks, own=[vars(module) for module in modules], tensors=parameters)
        self.layers: PackedLayers | None = None
        if all(_plain(layer) for layer in layers) and (projection is None or is_plain(projection, nn.Linear)):
            first = layers[0]
            heads, eps = first.attention.self.num_attention_heads, first.output.LayerNorm.eps
            before = (None, None) if projection is None else (projection.weight, projection.bias)
            self.layers = pack_layers([_parameters(layer) for layer in layers], heads, eps, products, *before)

    def is_current(self, products: torch.dtype, projection: nn.Module | None) -> bool:
        """Asked at every call."""
        return products is self.products and projection is self.projection and self.watch.unchanged()


_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def forget(owner: nn.Module) -> None:
    """Pack ``owner``'s layers anew at the next call: for whoever writes to parameters through ``.data``."""
    _packed.pop(owner, None)


def encode_packed(
    owner: nn.Module,
    layers: Sequence[nn.Module],
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None,
    products: torch.dtype | None = None,
    projection: nn.Module | None = None,
) -> Tensor | None:
    """The projection of the input, if there is one, and the layers in one call (`electra_fast.ops.encoder`), or None
    where that cannot be: then they run op by op.

    It can be on the CPU, without autograd, autocast or tracing, for layers of Hugging Face's names whose parts are
    plain: no hooks, no adapters, exact GELU. Layers are packed at the first call and again when a parameter, a part or
    a hook changed; ``owner`` is whose they are.

    Args:
        x: ``[T, N]``, or ``[T, E]`` with a projection, E → N.
        products: dtype of the products, by default x's; with int8, bfloat16 is passed between layers.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing() or len(layers) == 0:
        return None
    if torch.is_autocast_enabled(x.device.type) or owner.training:
        return None
    products = x.dtype if products is None else products
    if encoder_missing(x.device, x.dtype, products) is not None:
        return None
    packed = _packed.get(owner)
    if packed is None or not packed.is_current(products, projection):
        _packed.pop(owner, None)  # before the new one takes memory
        packed = _packed[owner] = _Packed(layers, products, projection)
    if packed.layers is None:
        return None
    if max_seqlen is None:
        max_seqlen = x.shape[0]
    if products is torch.int8:
        return encoder(x.to(torch.bfloat16), cu_seqlens, max_seqlen, packed.layers).to(x.dtype)
    return encoder(x, cu_seqlens, max_seqlen, packed.layers)


def _plain(layer: nn.Module) -> bool:
    """Whether nothing but its parameters matters of a layer: every part is as it was made."""
    attention, intermediate = layer.attention.self, layer.intermediate
    products = (
        attention.query,
        attention.key,
        attention.value,
        layer.attention.output.dense,
        intermediate.dense,
        layer.output.dense,
    )
    norms = (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    others = [module for module in layer.modules() if not any(module is part for part in (*products, *norms))]
    return (
        all(is_plain(product, nn.Linear) for product in products)
        and all(_plain_norm(norm) for norm in norms)
        and norms[0].eps == norms[1].eps
        and all(is_plain(module, type(module)) for module in others)
        and getattr(layer, "is_exact_gelu", True)
        and not getattr(attention, "causal", False)
        and len({p.dtype for p in layer.parameters()}) == 1
    )


def _plain_norm(norm: nn.Module) -> bool:
    kinds = [kind for kind in type(norm).__mro__ if issubclass(kind, nn.LayerNorm)]
    return (
        bool(kinds)
        and kinds[0].__module__.startswith(("torch.nn.", "electra_fast.nn."))
        and is_plain(norm, kinds[0])
        and norm.weight is not None
        and norm.bias is not None
    )


def _parameters(layer: nn.Module) -> LayerParameters:
    attention, first, last = layer.attention.self, layer.attention.output, layer.output
    projections = (attention.query, attention.key, attention.value)
    zeros = attention.query.weight.new_zeros(attention.query.out_features)
    biases = [zeros if linear.bias is None else linear.bias for linear in projections]
    return LayerParameters(
        torch.cat([linear.weight for linear in projections]),
        torch.cat(biases),
        first.dense.weight,
        first.dense.bias,
        first.LayerNorm.weight,
        first.LayerNorm.bias,
        layer.intermediate.dense.weight,
        layer.intermediate.dense.bias,
        last.dense.weight,
        last.dense.bias,
        last.LayerNorm.weight,
        last.LayerNorm.bias,
    )
