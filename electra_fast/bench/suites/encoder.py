"""Inference of a whole encoder, small and base, by precision: full-length batches, and real lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from electra_fast.bench.case import Case, Contender
from electra_fast.bench.peers import huggingface, onnx_encoder
from electra_fast.models import ElectraConfig, ElectraModel
from electra_fast.models.flops import encoder_flops

from .lengths import PARAGRAPHS, SENTENCES

Shared = tuple[dict[str, Tensor], ElectraConfig]
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "int8": 1e-1}


def _config(size: str) -> ElectraConfig:
    return getattr(ElectraConfig, size)()


def _weights(size: str, device: str) -> Shared:
    """Under the names of `transformers`, that everybody loads."""
    torch.manual_seed(0)
    config = _config(size)
    return ElectraModel(config).to(device).state_dict(), config


def _inputs(lengths: Sequence[int], device: str) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded to the longest on the right."""
    longest = max(lengths)
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    ids = torch.randint(1000, _config("small").vocab_size, mask.shape, device=device).masked_fill(~mask, 0)
    return ids, mask.long()


def _real_rows(hidden: Tensor, inputs: tuple) -> list[Tensor]:
    """What is at padding is nobody's business."""
    return [hidden[inputs[1].bool()].float()]


def _ours(dtype: torch.dtype | None) -> Callable[[Shared], Any]:
    def make(shared: Shared) -> Any:
        from electra_fast import accelerate

        return huggingface.run(accelerate(huggingface.model(*shared), dtype=dtype))

    return make


def _contenders(dtype: str, device: str) -> tuple[Contender, ...]:
    h, bf16 = huggingface, torch.bfloat16
    truth = Contender("transformers sdpa fp32", h.plain(), "float32, the truth for every precision")
    if device.startswith("cuda"):
        autotune = {"max_autotune": True, "triton.cudagraphs": True}
        theirs = torch.float32 if dtype == "float32" else bf16
        return (
            truth,
            Contender("electra-fast", _ours(theirs), "accelerate", ours=True),
            Contender("transformers sdpa", h.plain("sdpa", theirs), "weights of this precision"),
            Contender("transformers flash_attention_2", h.plain("flash_attention_2", theirs), "FlashAttention"),
            Contender("torch.compile", h.compiled(theirs), "default mode", level="default"),
            Contender("torch.compile max-autotune", h.compiled(theirs, **autotune), "max-autotune, CUDA graphs",
                      level="default"),
        )  # fmt: skip
    if dtype == "float32":
        return (
            truth,
            Contender("electra-fast", _ours(None), "accelerate", ours=True),
            Contender("transformers eager", h.plain("eager"), "float32", level="full"),
            Contender("ONNX Runtime", lambda s: onnx_encoder.session(*s, int8=False), "fused transformer operators"),
            Contender("torch.compile", h.compiled(torch.float32), "default mode", level="full"),
            Contender("torch.compile freezing", h.compiled(torch.float32, freezing=True), "freezing", level="full"),
            Contender("torch.compile max-autotune", h.compiled(torch.float32, freezing=True, max_autotune=True),
                      "max-autotune, freezing", level="full"),
            Contender("transformers sdpa, tcmalloc", h.plain(), "float32", allocator="tcmalloc", level="full"),
        )  # fmt: skip
    if dtype == "bfloat16":
        return (
            truth,
            Contender("electra-fast", _ours(bf16), "accelerate(dtype=torch.bfloat16)", ours=True),
            Contender("transformers sdpa", h.plain("sdpa", bf16), "bfloat16 weights"),
            Contender("transformers sdpa, autocast", h.plain(autocast=True), "bfloat16 autocast", level="full"),
            Contender("torch.compile", h.compiled(bf16), "bfloat16 weights, default mode", level="full"),
            Contender("torch.compile freezing", h.compiled(bf16, freezing=True), "bfloat16 weights, freezing",
                      level="default"),
            Contender("torch.compile max-autotune", h.compiled(bf16, freezing=True, max_autotune=True),
                      "bfloat16 weights, max-autotune, freezing", level="full"),
            Contender("transformers sdpa, tcmalloc", h.plain("sdpa", bf16), "bfloat16 weights",
                      allocator="tcmalloc", level="default"),
            Contender("torch.compile freezing, tcmalloc", h.compiled(bf16, freezing=True), "bfloat16 weights, freezing",
                      allocator="tcmalloc", level="full"),
        )  # fmt: skip
    return (
        truth,
        Contender("electra-fast", _ours(torch.int8), "accelerate(dtype=torch.int8)", ours=True),
        Contender("ONNX Runtime int8", lambda s: onnx_encoder.session(*s, int8=True),
                  "fused transformer operators, dynamic, weights by channel"),
        Contender("torch dynamic int8", h.dynamic_int8, "quantize_dynamic of nn.Linear"),
        Contender("torchao int8", h.torchao_int8, "dynamic, bfloat16, compiled with freezing", level="full"),
    )  # fmt: skip


def _case(size: str, batch: int, text: str, lengths: Sequence[int], dtype: str, device: str, level: str) -> Case:
    return Case(
        suite="encoder",
        name=f"{size} {batch}x{text} {dtype}",
        dtype=dtype,
        contenders=_contenders(dtype, device),
        setup=lambda: _weights(size, device),
        inputs=lambda shared: _inputs(lengths, device),
        device=device,
        shape={"size": size, "batch": batch, "length": text, "tokens": sum(lengths)},
        flops=encoder_flops(_config(size), sum(lengths), sum(length * length for length in lengths)),
        tokens=sum(lengths),
        tolerance=TOLERANCE[dtype],
        select=_real_rows,
        level=level,
    )


def cases(device: str) -> list[Case]:
    """Full-length batches of 1 and 32 (8 of base at 512), and batches of 32 real texts."""
    precisions = ("bfloat16", "float32") if device.startswith("cuda") else ("bfloat16", "float32", "int8")
    found = []
    for size, batch, length in (
        ("small", 1, 128), ("small", 32, 128), ("base", 1, 128), ("small", 1, 512), ("small", 32, 512),
        ("base", 32, 128), ("base", 1, 512), ("base", 8, 512), ("small", 8, 128), ("small", 128, 128),
        ("small", 32, 32), ("small", 32, 256),
    ):  # fmt: skip
        for dtype in precisions:
            common = (size, batch, length) == ("small", 32, 128)
            quick = (size, batch, length) == ("small", 1, 128)
            level = "quick" if quick else "default" if common else "full"
            found.append(_case(size, batch, str(length), [length] * batch, dtype, device, level))
    for text, lengths in (("sentences", SENTENCES), ("paragraphs", PARAGRAPHS)):
        for dtype in precisions:
            level = "default" if (text, dtype) == ("sentences", "bfloat16") else "full"
            found.append(_case("small", len(lengths), text, lengths, dtype, device, level))
    return found
