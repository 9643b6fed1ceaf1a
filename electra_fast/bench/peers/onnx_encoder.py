"""ONNX Runtime: an ELECTRA encoder of its fused transformer operators, in float32 and in 8 bits.

The graph is written as ONNX Runtime's transformer optimiser leaves it (EmbedLayerNormalization, Attention,
SkipLayerNormalization, BiasGelu), so that no exporter stands between the weights and its best form.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_fast.bench.case import Absent
from electra_fast.models import ElectraConfig

_DOMAIN = "com.microsoft"


class _Graph:
    """Nodes and initialisers as they are added."""

    def __init__(self, onnx: Any) -> None:
        self.onnx, self.nodes, self.initializers = onnx, [], []

    def constant(self, name: str, value: Tensor) -> str:
        self.initializers.append(self.onnx.numpy_helper.from_array(value.detach().contiguous().numpy(), name))
        return name

    def add(self, kind: str, inputs: list[str], out: str, domain: str = _DOMAIN, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [out], name=out, domain=domain, **attributes))
        return out


def graph(state: Mapping[str, Tensor], config: ElectraConfig) -> Any:
    """The model: int32 ``input_ids``, ``attention_mask`` [B, S] (padding on the right) to ``last_hidden_state``."""
    import onnx

    g = _Graph(onnx)
    eps = config.layer_norm_eps
    names = [f"embeddings.{name}" for name in (
        "word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
        "LayerNorm.weight", "LayerNorm.bias",
    )]  # fmt: skip
    tables = [g.constant(name, state[name]) for name in names]
    embed = onnx.helper.make_node(
        "EmbedLayerNormalization",
        ["input_ids", "segment_ids", *tables, "attention_mask"],
        ["embedded", "lengths"],
        domain=_DOMAIN,
        epsilon=eps,
    )
    g.add("Mul", ["input_ids", g.constant("zero", torch.zeros(1, dtype=torch.int32))], "segment_ids", "")
    g.nodes.append(embed)
    x = "embedded"
    if "embeddings_project.weight" in state:
        x = _linear(g, x, "embeddings_project", state, bias=True)
    for i in range(config.num_hidden_layers):
        x = _layer(g, x, f"encoder.layer.{i}", state, config.num_attention_heads, eps)
    g.add("Identity", [x], "last_hidden_state", "")
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.INT32, ["b", "s"])
              for n in ("input_ids", "attention_mask")]  # fmt: skip
    out = onnx.helper.make_tensor_value_info(
        "last_hidden_state", onnx.TensorProto.FLOAT, ["b", "s", config.hidden_size]
    )
    made = onnx.helper.make_graph(g.nodes, "electra", values, [out], g.initializers)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(_DOMAIN, 1)]
    return onnx.helper.make_model(made, opset_imports=opsets, ir_version=8)


def _linear(g: _Graph, x: str, name: str, state: Mapping[str, Tensor], bias: bool) -> str:
    """x times the transposed weight; the bias is left to the next operator unless asked for."""
    product = g.add("MatMul", [x, g.constant(f"{name}.weight", state[f"{name}.weight"].T)], f"{name}.product", "")
    constant = g.constant(f"{name}.bias", state[f"{name}.bias"])
    return g.add("Add", [product, constant], f"{name}.sum", "") if bias else product


def _norm(g: _Graph, x: str, residual: str, dense: str, norm: str, state: Mapping[str, Tensor], eps: float) -> str:
    weights = [g.constant(f"{norm}.{part}", state[f"{norm}.{part}"]) for part in ("weight", "bias")]
    inputs = [x, residual, *weights, f"{dense}.bias"]
    return g.add("SkipLayerNormalization", inputs, f"{norm}.out", epsilon=eps)


def _layer(g: _Graph, x: str, name: str, state: Mapping[str, Tensor], heads: int, eps: float) -> str:
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    weight = g.constant(f"{name}.qkv", torch.cat([state[f"{part}.weight"].T for part in parts], 1))
    bias = g.constant(f"{name}.qkv_bias", torch.cat([state[f"{part}.bias"] for part in parts]))
    context = g.add("Attention", [x, weight, bias, "lengths"], f"{name}.context", num_heads=heads)
    dense = f"{name}.attention.output.dense"
    product = _linear(g, context, dense, state, bias=False)
    hidden = _norm(g, product, x, dense, f"{name}.attention.output.LayerNorm", state, eps)
    wide = _linear(g, hidden, f"{name}.intermediate.dense", state, bias=False)
    wide = g.add("BiasGelu", [wide, f"{name}.intermediate.dense.bias"], f"{name}.gelu")
    product = _linear(g, wide, f"{name}.output.dense", state, bias=False)
    return _norm(g, product, hidden, f"{name}.output.dense", f"{name}.output.LayerNorm", state, eps)


def session(state: Mapping[str, Tensor], config: ElectraConfig, int8: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """``run(input_ids, attention_mask)`` -> last_hidden_state [B, S, N], with torch's number of threads."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise Absent(f"onnxruntime and onnx are not both installed ({error})") from None
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads spin only while it runs
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        onnx.save(graph(state, config), path)
        if int8:
            path = _quantised(path)
        made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        feed = {"input_ids": input_ids.int().numpy(), "attention_mask": attention_mask.int().numpy()}
        return torch.from_numpy(made.run(["last_hidden_state"], feed)[0])

    return run


def _quantised(path: str) -> str:
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises to preprocess what is fused already
    try:
        types = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what its shape inference does not know
        quantize_dynamic(path, path + ".int8", per_channel=True, weight_type=QuantType.QInt8, extra_options=types)
    finally:
        logging.root.setLevel(level)
    return path + ".int8"
