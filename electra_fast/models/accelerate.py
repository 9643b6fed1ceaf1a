"""A Hugging Face ELECTRA on our ops, in place."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from electra_fast.ops.encoder import encoder_missing

Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model, *, dtype: torch.dtype | None = None, padding: str = "drop") -> Model:
    """Make a `transformers` ELECTRA (any of its classes, or a model that contains one) run on our ops; returns it.

    Outputs at every token that the attention mask keeps, state dict, configuration and everything `transformers` does
    with the model (pipelines, ``Trainer``, ``save_pretrained``, gradient checkpointing, pickling) stay. Inside, its
    ``ElectraModel`` and ``ElectraLayer`` become subclasses of themselves with another forward pass. What that does
    not cover runs the original one, and a warning says so once: ``output_attentions``, decoders and cross-attention,
    head masks, three-dimensional masks, relative positions. Dropout draws other bits than torch's, at the rate rounded
    to a multiple of 1/256. A pickle needs electra_fast to be loaded; what ``save_pretrained`` writes does not. Calling
    it again changes ``padding`` and ``dtype`` and nothing else.

    On the CPU, without autograd, all layers run in one call on weights that are packed at the first use, a second copy
    of them (`electra_fast.ops.encoder`); changes of the parameters are seen, but for those written through ``.data``.

    Args:
        dtype: torch.bfloat16 (or another floating dtype): convert the model to it. torch.int8: leave the model as it
            is, and multiply the layers' matrices in 8 bits in inference on the CPU, which costs some accuracy (measure
            it on your task). None: as it is.
        padding: "drop": masked tokens are not computed, and come out as zeros. (Where a head reads the first token and
            it is masked, by padding on the left, the batch is computed whole; under `torch.compile` that cannot be
            seen, and needs "keep".) "keep": they are computed, as `transformers` does; a row without any token sees
            nothing, instead of everything.

    Raises:
        TypeError: no Hugging Face ELECTRA is in the model, or one whose forward pass was replaced by another.
        RuntimeError: int8 on a processor without instructions for it.
        ValueError: another ``padding`` or ``dtype``, or "drop" for a head that reads padding.
        ImportError: `transformers` is not installed.
    """
    if padding not in ("drop", "keep"):
        raise ValueError(f"accelerate: padding must be 'drop' or 'keep', got {padding!r}")
    if dtype is not None and dtype is not torch.int8 and not getattr(dtype, "is_floating_point", False):
        raise ValueError(f"accelerate: dtype must be a floating dtype, torch.int8 or None, got {dtype}")
    if dtype is torch.int8 and (reason := encoder_missing("cpu", torch.bfloat16, dtype)) is not None:
        raise RuntimeError(f"accelerate: dtype=torch.int8 cannot be: {reason}")
    try:
        from . import accelerated
    except ModuleNotFoundError as missing:
        raise ImportError(f"accelerate needs transformers: pip install 'transformers>=4.57' ({missing})") from missing
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a Hugging Face ELECTRA, got {type(model).__name__}")
    accelerated.convert(model, padding, dtype is torch.int8)
    if dtype is not None and dtype is not torch.int8:
        model.to(dtype)
    return model
