"""The layers of a post-LN encoder in inference on the CPU: weights packed once, one call for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import backend, checks, native

PRODUCTS = (torch.float32, torch.bfloat16, torch.int8)


class LayerParameters(NamedTuple):
    """One layer: queries, keys and values projected from N, attention, ``LN``, N → intermediate → N, ``LN``.

    Weights ``[out, in]``, as `torch.nn.Linear` has them, biases ``[out]`` or None; those of queries, keys and values
    are stacked in this order.
    """

    projections_weight: Tensor  # [3·N, N]
    projections_bias: Tensor | None
    attention_output_weight: Tensor  # [N, N]
    attention_output_bias: Tensor | None
    attention_norm_weight: Tensor
    attention_norm_bias: Tensor
    intermediate_weight: Tensor  # [I, N]
    intermediate_bias: Tensor | None
    output_weight: Tensor  # [N, I]
    output_bias: Tensor | None
    output_norm_weight: Tensor
    output_norm_bias: Tensor


@dataclass(frozen=True)
class PackedLayers:
    """What `pack_layers` makes: copies, laid out for this machine's instruction set. Not for storing.

    Attributes:
        projection: of the input, or None; parameters: eight tensors a layer; products: the dtype that products are made
            in; input_size, hidden_size, intermediate_size, heads, eps: the network's.
    """

    projection: Tensor | None
    parameters: tuple[Tensor, ...]
    products: torch.dtype
    input_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    eps: float


def encoder_missing(device: torch.device | str, dtype: torch.dtype, products: torch.dtype | None = None) -> str | None:
    """None if `encoder` runs on this device with activations of ``dtype`` (and ``products``), else why not."""
    if native.error is not None:
        return native.error
    if torch.device(device).type != "cpu":
        return f"encoder is for the CPU, not for {device}: there the ops run one by one"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"encoder takes float32 and bfloat16, not {str(dtype).removeprefix('torch.')}"
    if products is torch.int8 and not _has_int8():
        return "products of int8 need a processor with AVX-512 VNNI (and ELECTRA_CPU_CAPABILITY not below avx512_bf16)"
    if forced := sorted({name for op in _PARTS if (name := backend.forced(op)) not in (None, "native")}):
        return f"backend {' and '.join(forced)} was asked for, which has no encoder: the ops run one by one"
    return None


def pack_layers(
    layers: Sequence[LayerParameters],
    heads: int,
    eps: float = 1e-12,
    products: torch.dtype = torch.float32,
    projection_weight: Tensor | None = None,
    projection_bias: Tensor | None = None,
) -> PackedLayers:
    """Copy the layers' parameters into the form that `encoder` multiplies.

    Args:
        layers: at least one, all of one size, float32, bfloat16 or float16, on the CPU.
        products: float32; bfloat16, summed in float32 (where the processor multiplies bfloat16; elsewhere the rounded
            weights are multiplied in float32); or int8: weights quantised column by column, activations row by row as
            they come, both symmetric, 8 bits.
        projection_weight, projection_bias: ``[N, E]`` and ``[N]`` of a linear layer before the first (ELECTRA's, where
            embeddings are narrower than hidden states), or None.

    Raises: ValueError for no layers, another dtype of products, a wrong shape; RuntimeError where `encoder` cannot run,
        as with int8 on a processor that has no instruction for it.
    """
    if not layers:
        raise ValueError("pack_layers: layers must hold at least one layer, got none")
    if products not in PRODUCTS:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in PRODUCTS)
        raise ValueError(f"pack_layers: products must be one of {names}, got {products}")
    hidden, intermediate = layers[0].projections_weight.shape[1], layers[0].intermediate_weight.shape[0]
    if (reason := encoder_missing(layers[0].projections_weight.device, torch.float32, products)) is not None:
        raise RuntimeError(f"pack_layers: {reason}")
    projection, inputs = None, hidden
    if projection_weight is not None:
        like = layers[0].projections_weight
        checks.check("pack_layers", "projection_weight", projection_weight, checks.CASTABLE, (hidden, None), like)
        if projection_bias is not None:
            checks.check("pack_layers", "projection_bias", projection_bias, checks.CASTABLE, (hidden,), like)
        projection, inputs = _pack(projection_weight, projection_bias, products), projection_weight.shape[1]
    elif projection_bias is not None:
        raise ValueError("pack_layers: projection_bias needs projection_weight, got none")
    parameters: list[Tensor] = []
    for index, layer in enumerate(layers):
        _check_layer(index, layer, hidden, intermediate)
        for weight, bias, norm in (
            (layer.projections_weight, layer.projections_bias, ()),
            (
                layer.attention_output_weight,
                layer.attention_output_bias,
                (layer.attention_norm_weight, layer.attention_norm_bias),
            ),
            (layer.intermediate_weight, layer.intermediate_bias, ()),
            (layer.output_weight, layer.output_bias, (layer.output_norm_weight, layer.output_norm_bias)),
        ):
            parameters.append(_pack(weight, bias, products))
            parameters += [x.detach().to(torch.float32, copy=True) for x in norm]
    return PackedLayers(projection, tuple(parameters), products, inputs, hidden, intermediate, heads, eps)


def encoder(x: Tensor, cu_seqlens: Tensor, max_seqlen: int, layers: PackedLayers) -> Tensor:
    """The projection of the input, if there is one, and all layers, without dropout and without a derivative:

    ``x ← x P + p``, then in every layer
    ``h = LN(x + attention(x Wq + bq, x Wk + bk, x Wv + bv) Wo + bo);  x ← LN(h + gelu(h W1 + b1) W2 + b2)``

    Args:
        x: ``[T, N]``, or ``[T, E]`` with a projection; float32 or bfloat16, on the CPU; bfloat16 where products are.
        cu_seqlens: int32 ``[B+1]``: sequence b is the rows ``cu_seqlens[b] … cu_seqlens[b+1]-1``.
        max_seqlen: an upper bound of the sequences' lengths.

    Returns: ``[T, N]``, x's dtype. Sums, norms and GELU are float32; what passes from layer to layer, queries, keys,
        values and contexts have x's dtype. Rows behind the last sequence see nothing.

    Raises: TypeError for a wrong dtype; ValueError for a wrong shape, or sequences longer than max_seqlen; RuntimeError
        where x needs a derivative.

    Source: Vaswani et al. 2017, section 3; Devlin et al. 2019.
    """
    op = "encoder"
    checks.check(op, "x", x, (torch.float32, torch.bfloat16), (None, layers.input_size))
    checks.check_cu_seqlens(op, "cu_seqlens", cu_seqlens, x)
    if layers.products is torch.bfloat16 and x.dtype is not torch.bfloat16:
        raise TypeError("encoder: x must be bfloat16 like the products of these layers, got float32")
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("encoder: it has no derivative: call it under torch.no_grad(), or run the ops one by one")
    sizes = (layers.hidden_size, layers.heads, layers.intermediate_size, layers.eps)
    try:
        return torch.ops.electra_fast.encoder.default(
            x, cu_seqlens, max_seqlen, layers.projection, layers.parameters, *sizes
        )
    except RuntimeError as error:
        if str(error).startswith("encoder: "):
            raise ValueError(str(error)) from None
        raise


_PARTS = ("attention", "layer_norm", "gelu")  # the ops that it is made of


def _has_int8() -> bool:
    from electra_fast import _native

    return _native.build_info()["capability"] == "avx512_bf16"


def _pack(weight: Tensor, bias: Tensor | None, products: torch.dtype) -> Tensor:
    weight = weight.detach()
    if weight.dtype is torch.float16:
        weight = weight.float()
    return torch.ops.electra_fast.pack_linear(weight, None if bias is None else bias.detach().float(), products)


def _check_layer(index: int, layer: LayerParameters, hidden: int, intermediate: int) -> None:
    rows = {"projections": 3 * hidden, "attention_output": hidden, "intermediate": intermediate, "output": hidden}
    like = layer.projections_weight
    for name, value in layer._asdict().items():
        part = name.removesuffix("_weight").removesuffix("_bias")
        if value is None and name.endswith("_bias") and part in rows:
            continue
        if part not in rows:
            shape: tuple[int, ...] = (hidden,)
        elif name.endswith("_bias"):
            shape = (rows[part],)
        else:
            shape = (rows[part], intermediate if part == "output" else hidden)
        checks.check("pack_layers", f"layers[{index}].{name}", value, checks.CASTABLE, shape, like)


if native.error is None:

    @torch.library.register_fake("electra_fast::encoder")
    def _fake(x, cu_seqlens, max_seqlen, projection, parameters, hidden, heads, intermediate_size, eps) -> Tensor:
        return x.new_empty(x.shape[0], hidden)
