"""The native libraries: loading them, and giving their ops fakes and autograd.

`_C` has the schemas and the kernels for the CPU, `_C_cuda` those for CUDA. Importing this never fails: where a library
is missing, `error` or `cuda_error` says why, and `missing` says it per op.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch

from electra_fast import registration

NAMESPACE = "electra_fast"
_KEYS = {"cpu": "CPU", "cuda": "CUDA"}  # device type -> dispatch key
_NAMES = {"cpu": "CPU", "cuda": "CUDA"}
# Dtypes of activations by device; where an op differs, by (device, op).
_DTYPES: dict[str | tuple[str, str], tuple[torch.dtype, ...]] = {
    "cpu": (torch.float32, torch.bfloat16, torch.float64),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
    ("cuda", "attention"): (torch.bfloat16, torch.float16),  # what tensor cores multiply
    ("cuda", "generator_head"): (torch.bfloat16, torch.float16),
}
_ADAM_DTYPES = {"cpu": (torch.float32, torch.float64), "cuda": (torch.float32,)}  # of parameters and averages


def _load(library: str, needs: str = "a C++ compiler") -> str | None:
    """Load one library of the package; None, or why it could not be."""
    try:
        spec = importlib.util.find_spec(f"electra_fast.{library}")  # follows the redirect of an editable install
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        return f"electra_fast.{library} is not built: install the package with `pip install .` where {needs} is"
    try:
        torch.ops.load_library(spec.origin)
    except OSError as failure:
        return f"{spec.origin} could not be loaded: {failure}"
    return None


def _load_cuda() -> str | None:
    """Load the CUDA library, after `_C`, which has the schemas; None, or why it could not be."""
    if error is not None:
        return error
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return _load("_C_cuda", f"nvcc of CUDA {torch.version.cuda.split('.')[0]}")


error: str | None = _load("_C")
cuda_error: str | None = _load_cuda()


# Ops and the names of their functions: one that updates its arguments ends in an underscore, as in torch.
FUNCTIONS = {
    "attention": "attention",
    "layer_norm": "layer_norm",
    "gelu": "gelu",
    "embedding": "embedding",
    "mask_tokens": "mask_tokens",
    "generator_head": "generator_head",
    "replace_tokens": "replace_tokens",
    "discriminator_loss": "discriminator_loss",
    "adam": "adam_",
}


def _overload(function: str) -> Callable | None:
    packet = getattr(getattr(torch.ops, NAMESPACE), function, None)
    return None if packet is None else packet.default


def _device_types(function: str) -> frozenset[str]:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return frozenset(device for device, key in _KEYS.items() if has_kernel(f"{NAMESPACE}::{function}", key))


implementations = {op: overload for op, name in FUNCTIONS.items() if (overload := _overload(name)) is not None}
_devices = {op: _device_types(FUNCTIONS[op]) for op in implementations}


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    return " and ".join(([", ".join(names[:-1])] if len(names) > 1 else []) + names[-1:])


def missing(op: str, device: str | None, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """None if the native op runs on this device (None: on any) and these dtypes of activations, else why not."""
    if error is not None:
        return error
    if device == "cuda" and cuda_error is not None:
        return cuda_error
    devices = _devices.get(op, ())
    if not devices or (device is not None and device not in devices):
        return f"the native library has no kernel of {op}" + (f" for device {device}" if devices else "")
    if device is None:
        return None
    kind = _NAMES[device]
    if op == "adam":
        if len(set(dtypes)) > 1 or not set(dtypes).issubset(_ADAM_DTYPES[device]):
            allowed = " or ".join(_names((dtype,)) for dtype in _ADAM_DTYPES[device])
            return f"native adam on {kind} takes parameters and averages of one dtype, {allowed}"
        return None
    allowed = _DTYPES.get((device, op), _DTYPES[device])
    wrong = [dtype for dtype in dtypes if dtype.is_floating_point and dtype not in allowed]
    if wrong:
        what = f"native {op} on {kind} takes" if (device, op) in _DTYPES else f"native kernels on {kind} take"
        return f"{what} {_names(allowed)}, not {_names((wrong[0],))}"
    return None


def register(op: str, formula: registration.Formula) -> None:
    """Give a native op its fake and autograd formula; nothing to do where the library has no such op."""
    if op in implementations:
        implementations[op] = registration.attach(op, f"{NAMESPACE}::{FUNCTIONS[op]}", formula, "native")
