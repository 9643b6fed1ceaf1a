"""Encoders of `transformers`: attention by implementation, autocast and bfloat16 weights, torch.compile, 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from electra_fast.bench.case import Absent
from electra_fast.models import ElectraConfig

Run = Callable[[Tensor, Tensor], Tensor]


def model(state: Mapping[str, Tensor], config: ElectraConfig, attention: str = "sdpa") -> nn.Module:
    """An `ElectraModel` of `transformers` for inference, on the very tensors of ``state``."""
    try:
        import transformers
    except ImportError as error:
        raise Absent(f"transformers is not installed ({error})") from None
    transformers.logging.set_verbosity_error()
    theirs = transformers.ElectraConfig.from_dict(config.to_huggingface_dict())
    device = next(iter(state.values())).device
    try:
        made = transformers.ElectraModel._from_config(theirs, attn_implementation=attention).to(device)
    except ImportError as error:
        raise Absent(f"transformers has no {attention} here ({str(error).splitlines()[0]})") from None
    made.load_state_dict(state, strict=False, assign=True)
    return made.eval()


def run(network: nn.Module, autocast: bool = False) -> Run:
    """Hidden states of the last layer, without autograd."""

    def call(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(input_ids.device.type, torch.bfloat16, enabled=autocast):
            return network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return call


def plain(attention: str = "sdpa", dtype: torch.dtype = torch.float32, autocast: bool = False) -> Callable[..., Run]:
    """`transformers` as it comes."""
    return lambda shared: run(model(*shared, attention).to(dtype), autocast)


def compiled(dtype: torch.dtype, **options: Any) -> Callable[..., Run]:
    """Through torch.compile with Inductor's ``options``, static shapes."""

    def make(shared: Any) -> Run:
        torch._dynamo.reset()
        network = model(*shared, "sdpa").to(dtype)
        return run(torch.compile(network, dynamic=False, options=options or None))

    return make


def dynamic_int8(shared: Any) -> Run:
    """torch's dynamic quantisation of the linear layers."""
    from torch.ao.quantization import quantize_dynamic

    return run(quantize_dynamic(model(*shared, "sdpa"), {nn.Linear}, dtype=torch.qint8))


def torchao_int8(shared: Any) -> Run:
    """torchao: activations row by row as they come, weights by channel, compiled with freezing."""
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise Absent(f"torchao is not installed ({error})") from None
    torch._dynamo.reset()
    network = model(*shared, "sdpa").to(torch.bfloat16)
    own = nn.ModuleList([nn.ModuleList(network.encoder.layer)])
    quantize_(own, Int8DynamicActivationInt8WeightConfig())
    return run(torch.compile(network, dynamic=False, options={"freezing": True}))
