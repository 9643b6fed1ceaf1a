"""Weight files of Hugging Face directories: safetensors or PyTorch's pickles, whole or in shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_fast.errors import CheckpointError
from electra_fast.files import atomic_writer

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. CheckpointError if the file is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: give a directory that save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object, got {type(values).__name__}")
    return values


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory, on the CPU: model.safetensors or pytorch_model.bin, or the shards of their index.

    Raises:
        CheckpointError: there is no such file, a shard is missing, or a file is damaged.
    """
    for name in (SAFETENSORS, PICKLE):
        if (directory / name).exists():
            return _read_file(directory / name)
        index = directory / f"{name}.index.json"
        if index.exists():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise CheckpointError(f"{index} is damaged: it has no weight_map")
            weights: dict[str, Tensor] = {}
            for shard in sorted(set(shards.values())):
                weights |= _read_file(directory / shard)
            if missing := sorted(set(shards) - set(weights)):
                raise CheckpointError(f"{index} promises {missing[0]} in {shards[missing[0]]}, which does not hold it")
            return weights
    raise CheckpointError(
        f"{directory} holds neither {SAFETENSORS} nor {PICKLE}: give a directory that save_pretrained wrote"
    )


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist, though the index names it: copy it from where the model was")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return {name: tensor.clone() for name, tensor in load_file(path).items()}  # off the memory-mapped file
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path} is damaged, or holds more than tensors: {reason}") from error


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write one safetensors file, atomically, marked as PyTorch's so that `transformers` takes it."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_writer(path) as stream:
        stream.write(save(tensors, metadata={"format": "pt"}))
