"""What ONNX Runtime's own tools make of an exported graph: fused operators, and matrices of 8 bits."""

from __future__ import annotations

from pathlib import Path

from electra_fast.extras import require
from electra_fast.workflows.deployment.quiet import errors_only

from .formats import INT8_NAME, ONNX_NAME
from .source import Source


def optimize(source: Source, folder: Path) -> None:
    """Fuse attention, layer norms and activations, in place (``onnxruntime.transformers``, model type bert).

    The operators that come out (com.microsoft) are ONNX Runtime's alone.
    """
    optimizer = require("onnxruntime.transformers.optimizer", "export", "--optimize")
    path = str(folder / ONNX_NAME)
    with errors_only():
        made = optimizer.optimize_model(
            path,
            model_type="bert",
            num_heads=source.config.num_attention_heads,
            hidden_size=source.config.hidden_size,
        )
        made.save_model_to_file(path)


def quantize(folder: Path) -> None:
    """Write a second model beside the first, its weights in 8 bits a number, activations quantised as they come."""
    onnx = require("onnx", "export", "--int8")
    quantization = require("onnxruntime.quantization", "export", "--int8")
    with errors_only():
        quantization.quantize_dynamic(
            folder / ONNX_NAME,
            folder / INT8_NAME,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what shape inference does not know
        )
