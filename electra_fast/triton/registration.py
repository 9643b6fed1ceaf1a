"""The Triton kernels as torch ops, in the namespace ``electra_fast_triton``.

Each op is registered under its schema (csrc/schema.cpp; here again, since a machine without the native library has this
backend too) as an opaque op with the fake and the autograd formula of `electra_fast.ops`. So ``torch.compile`` puts it
into its graph without looking inside, CUDA graphs capture it, and tensor subclasses and modes see it like any op of
torch. In eager mode, where there are none, the launcher is called without torch's dispatcher between
(docs/notes/triton-host-overhead.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable

import torch

from electra_fast.registration import Formula, attach

NAMESPACE = "electra_fast_triton"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_DEVICES = ("cuda", "cpu") if INTERPRETED else ("cuda",)  # AMD's devices are "cuda" in torch as well
_KEYS = {"cuda": "CUDA", "cpu": "CPU"}  # device type -> dispatch key
_DROPOUT = "float dropout_p, Tensor? rng, int site"
_SEQUENCES = "Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k, float scale, bool causal"
_TABLES = (
    "Tensor input_ids, Tensor position_ids, Tensor token_type_ids, Tensor word, Tensor position, Tensor token_type, "
    "Tensor weight, Tensor bias"
)

# The schema of every function. Op X is `forward` in the file X.py, its backward `backward` there.
SCHEMAS = {
    "attention": f"(Tensor q, Tensor k, Tensor v, {_SEQUENCES}, {_DROPOUT}) -> (Tensor, Tensor)",
    "attention_backward": (
        f"(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {_SEQUENCES}, {_DROPOUT}) "
        "-> (Tensor, Tensor, Tensor)"
    ),
    "layer_norm": (
        f"(Tensor x, Tensor? x_bias, Tensor? residual, Tensor weight, Tensor bias, float eps, {_DROPOUT}) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "layer_norm_backward": (
        f"(Tensor grad, Tensor sum, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, Tensor? x_bias, {_DROPOUT}) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "gelu": "(Tensor x, Tensor? bias) -> Tensor",
    "gelu_backward": "(Tensor grad, Tensor x, Tensor? bias) -> (Tensor, Tensor)",
    "embedding": (
        f"({_TABLES}, float eps, {_DROPOUT}, int padding_idx, ScalarType out_dtype) -> (Tensor, Tensor, Tensor)"
    ),
    "embedding_backward": (
        f"(Tensor grad, {_TABLES}, Tensor mean, Tensor rstd, {_DROPOUT}, int padding_idx) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "mask_tokens": (
        "(Tensor input_ids, Tensor cu_seqlens, Tensor special_ids, int mask_id, float probability, "
        "int max_predictions, int max_per_sequence, float replace_probability, bool with_replacement, Tensor rng, "
        "int site) -> (Tensor, Tensor, Tensor)"
    ),
    "generator_head": (
        "(Tensor hidden, Tensor weight, Tensor bias, Tensor targets, float temperature, bool disallow_correct, "
        "Tensor rng, int site) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "generator_head_backward": (
        "(Tensor grad, Tensor hidden, Tensor weight, Tensor bias, Tensor targets, Tensor lse) "
        "-> (Tensor, Tensor, Tensor)"
    ),
    "replace_tokens": "(Tensor input_ids, Tensor positions, Tensor targets, Tensor sampled) -> (Tensor, Tensor)",
    "discriminator_loss": (
        "(Tensor hidden, Tensor weight, Tensor bias, Tensor labels, Tensor? mask) -> (Tensor, Tensor)"
    ),
    "discriminator_loss_backward": (
        "(Tensor grad, Tensor hidden, Tensor weight, Tensor bias, Tensor labels, Tensor? mask, Tensor logits) "
        "-> (Tensor, Tensor, Tensor)"
    ),
    "adam_": (
        "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, Tensor(c!)[] exp_avg_sq, float[] weight_decay, "
        "Tensor learning_rate, Tensor grad_scale, float beta1, float beta2, float eps) -> ()"
    ),
}
OPERATIONS = tuple(name.rstrip("_") for name in SCHEMAS if not name.endswith("_backward"))

error: str | None = None
if importlib.util.find_spec("triton") is None:
    error = "triton is not installed: `pip install triton` where there is a GPU"

implementations: dict[str, Callable] = {}
_library = torch.library.Library(NAMESPACE, "DEF")


def _launcher(op: str, part: str) -> Callable:
    """``forward`` or ``backward`` of an op's file, which is imported, and with it Triton, at the first call."""
    found: list[Callable] = []

    def call(*args):
        if not found:
            found.append(getattr(importlib.import_module(f"{__package__}.{op}"), part))
        return found[0](*args)

    return call


def register(op: str, formula: Formula) -> None:
    """Register an op and give it its fake and autograd formula; nothing to do where Triton is not installed."""
    if error is not None or op in implementations:
        return
    function = op if op in SCHEMAS else f"{op}_"
    parts = {function: "forward"} if formula.backward is None else {function: "forward", f"{op}_backward": "backward"}
    launchers = {name: _launcher(op, part) for name, part in parts.items()}
    for name, launcher in launchers.items():
        _library.define(name + SCHEMAS[name])
        for device in _DEVICES:
            _library.impl(name, launcher, _KEYS[device])
    both = (*launchers.values(), None)[:2]
    implementations[op] = attach(op, f"{NAMESPACE}::{function}", formula, "triton", both)


def missing(op: str, device: str | None, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """None if the Triton op runs on this device (None: on any) and these dtypes of activations, else why not."""
    if error is not None:
        return error
    if device is not None and device not in _DEVICES:
        return f"triton kernels run on GPUs, not on {device} (for tests: TRITON_INTERPRET=1)"
    for dtype in dtypes:
        if dtype not in DTYPES and dtype.is_floating_point:
            return f"triton kernels take float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    return None
