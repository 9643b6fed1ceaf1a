"""The page beside an exported model: what it is, and a few lines that run it, without this package."""

from __future__ import annotations

from .formats import INT8_NAME, ONNX_NAME, PROGRAM_NAME
from .source import Source

_BATCH = """\
from tokenizers import Tokenizer

texts = {texts}
encoded = Tokenizer.from_file("tokenizer.json").encode_batch(texts)
"""
_ARRAYS = """\
batch = {{
    "input_ids": {array}([row.ids for row in encoded]),
    "attention_mask": {array}([row.attention_mask for row in encoded]),
    "token_type_ids": {array}([row.type_ids for row in encoded]),
}}
"""
_CHOICES = "batch = {name: rows.reshape(1, len(texts), -1) for name, rows in batch.items()}  # one question\n"
_SHOW = "for name, values in outputs.items():\n    print(name, values.shape)\n"

_ONNX = """\
import numpy
import onnxruntime
{batch}
session = onnxruntime.InferenceSession("{file}")
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, batch)))
{show}"""
_PROGRAM = """\
import torch
{batch}
model = {load}
with torch.no_grad():
    outputs = dict(zip({outputs}, model(*batch.values())))
{show}"""
_HUGGINGFACE = """\
import torch
from transformers import AutoTokenizer, {architecture}

tokenizer = AutoTokenizer.from_pretrained(".")
model = {architecture}.from_pretrained(".")
texts = {texts}
batch = tokenizer({arguments}, padding=True, truncation=True, max_length={max_length}, return_tensors="pt")
{choices}with torch.no_grad():
    outputs = model(**batch)
{show}"""
_NEEDS = {
    "hf": "`pip install torch transformers`",
    "onnx": "`pip install onnxruntime tokenizers numpy`",
    "torch-export": "`pip install torch tokenizers`",
    "aoti": "`pip install torch tokenizers`, the version of torch that export.json names",
}
_REMARKS = {
    "hf": "A `transformers` directory: pipelines and `from_pretrained` take it as it is.",
    "onnx": "A graph of standard operators for ONNX Runtime, or another runtime of ONNX.",
    "torch-export": "A program of torch's operators (`torch.export`), to run or to compile further.",
    "aoti": "Machine code (AOTInductor) for processors with the instructions that export.json names under "
    "`compiled_for`, and for no others.",
}


def readme(source: Source, format: str, int8: bool) -> str:
    """The page, in Markdown; its code runs in the folder."""
    inputs = ", ".join(f"`{name}`" for name in ("input_ids", "attention_mask", "token_type_ids"))
    shape = ", ".join(source.head.dimensions)
    outputs = " and ".join(f"`{name}`" for name in source.head.outputs)
    remarks = (
        f"\n`{INT8_NAME}` is the same model with matrices of 8 bits: smaller, faster, less exact.\n" if int8 else ""
    )
    if source.temperature is not None:
        remarks += (
            f"\nFor probabilities divide the logits by {source.temperature:.4g} first, a temperature fitted on other "
            "data (`temperature` in `export.json`); labels stay the same.\n"
        )
    return (
        f"# {source.architecture}\n\n{_REMARKS[format]} Needs {_NEEDS[format]}.\n\n"
        f"Takes {inputs}, each int64 [{shape}], any batch, at most {source.max_length} tokens; returns {outputs}. "
        "`export.json` has the names of the labels, and how far the outputs are from the model it was made from.\n"
        f"{remarks}\n```python\n{_code(source, format)}```\n"
    )


def _code(source: Source, format: str) -> str:
    if source.head.choices:
        texts = '[("Where does the sun rise?", "In the east."), ("Where does the sun rise?", "In the west.")]'
    else:
        texts = '["One text.", "Another, longer one."]  # or pairs: [("A question?", "A text."), …]'
    if format == "hf":
        pairs = "[a for a, b in texts], [b for a, b in texts]"
        return _HUGGINGFACE.format(
            architecture=source.architecture,
            texts=texts,
            arguments=pairs if source.head.choices else "texts",
            max_length=source.max_length,
            choices=_CHOICES if source.head.choices else "",
            show=_SHOW,
        )
    array = "numpy.array" if format == "onnx" else "torch.tensor"
    batch = _BATCH.format(texts=texts) + _ARRAYS.format(array=array) + (_CHOICES if source.head.choices else "")
    if format == "onnx":
        return _ONNX.format(batch=batch, file=ONNX_NAME, show=_SHOW)
    load = {
        "torch-export": f'torch.export.load("{PROGRAM_NAME}").module()',
        "aoti": f'torch._inductor.aoti_load_package("{PROGRAM_NAME}")',
    }[format]
    return _PROGRAM.format(batch=batch, load=load, outputs=list(source.head.outputs), show=_SHOW)
