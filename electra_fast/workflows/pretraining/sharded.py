"""A checkpoint of weights that lie in parts, each process writing its own, by torch.distributed.checkpoint.

A directory that appears whole or not at all:

    step-00001234/
        __0_0.distcp, __1_0.distcp, …    the tensors' parts, a file a process
        .metadata                        which part lies where (a pickle; only names, shapes and offsets are let in)
        state.pt                         all the rest, by torch.save
        manifest.json                    every file's length and CRC-32

It can be read by any number of processes, whether they hold the weights in parts or whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_fast.errors import CheckpointError, DiskFullError
from electra_fast.files import atomic_writer, is_disk_full, sync_directory, temporary_path, write_text

from .ranks import ALONE, Ranks

STATE, MANIFEST, METADATA = "state.pt", "manifest.json", ".metadata"
_CHUNK = 1 << 22
_METADATA_CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata"),
        *("TensorProperties", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),  # since Python 3.13
}


def write_sharded(target: Path, tensors: dict[str, Tensor], state: dict[str, Any], ranks: Ranks) -> None:
    """Write one; a call of all processes, on a file system that all see.

    Args:
        tensors: DTensors, or tensors that all processes have alike; state: the rest, as the first process has it.

    Raises:
        DiskFullError: no space left. CheckpointError: it could not be written for another reason. Nothing is left
        behind.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    temporary = temporary_path(target)

    def begin() -> None:
        remove(temporary)
        temporary.mkdir()

    def finish(entries: dict[str, dict[str, int]]) -> None:
        with atomic_writer(temporary / STATE) as stream:
            torch.save(state, stream)
        for name in (STATE, METADATA):
            entries[name] = _entry(temporary / name)
        write_text(temporary / MANIFEST, json.dumps({"files": entries}, indent=1) + "\n")
        sync_directory(temporary)
        remove(target)
        os.replace(temporary, target)
        sync_directory(target.parent)

    try:
        ranks.agree(begin)
        with ranks.together():
            needed = sum(_bytes_here(tensor) for tensor in tensors.values())
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary))
        with ranks.together():
            mine = {path.name: _entry(path) for path in temporary.glob(f"__{ranks.rank}_*")}
        every = {name: entry for entries in ranks.gather(mine) for name, entry in entries.items()}
        ranks.agree(lambda: finish(every))
    except BaseException as error:
        full = _is_full(error, temporary, needed) if isinstance(error, (OSError, CheckpointException)) else False
        if ranks.first:
            remove(temporary)
        if full:
            raise DiskFullError(f"cannot write {target}: no space left on the disk") from error
        if isinstance(error, CheckpointException):
            reason = " ".join(str(error).split())
            raise CheckpointError(f"cannot write {target}: {reason}") from error
        raise


def check_sharded(path: Path) -> None:
    """Compare every file with the manifest. CheckpointError for the first that is missing, truncated or changed."""
    try:
        entries = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: its {MANIFEST} cannot be read ({error})") from None
    for name, entry in entries.items():
        try:
            found = _entry(path / name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {name}: {error.strerror}") from None
        if found != entry:
            what = "CRC-32" if found["bytes"] == entry["bytes"] else "length"
            raise CheckpointError(f"checkpoint {path} is damaged: the {what} of {name} differs")


def read_sharded(path: Path, tensors: dict[str, Tensor], ranks: Ranks = ALONE) -> None:
    """Fill ``tensors`` in place, of each process the parts that it has; a call of all processes.

    Raises:
        CheckpointError: the checkpoint lacks one of them, or has it in another shape.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            metadata = _read_metadata(path / METADATA)
            metadata.storage_meta = getattr(metadata, "storage_meta", None) or dcp.metadata.StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as one process wants it
            dcp.load(tensors, storage_reader=Reader(path), no_dist=ranks.size == 1)
    except (CheckpointException, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path} is not of this network: {reason}") from None


def remove(path: Path) -> None:
    """Delete a checkpoint, file or directory, if it is there; a directory so that a crash leaves none that is half."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    leaving = path
    if not path.name.startswith("."):
        leaving = temporary_path(path)
        shutil.rmtree(leaving, ignore_errors=True)
        os.replace(path, leaving)
    shutil.rmtree(leaving)


class _MetadataUnpickler(pickle.Unpickler):
    """Lets in what describes tensors, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        known = name in _METADATA_CLASSES.get(module, ())
        if module == "torch":
            known = name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)
        if not known:
            raise pickle.UnpicklingError(f"{module}.{name} is nothing that describes a tensor")
        return super().find_class(module, name)


def _read_metadata(path: Path) -> Any:
    try:
        with open(path, "rb") as stream:
            return _MetadataUnpickler(stream).load()
    except Exception as error:  # a damaged pickle fails in a dozen ways
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _entry(path: Path) -> dict[str, int]:
    """A file's line of the manifest."""
    length = crc = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            length, crc = length + len(chunk), zlib.crc32(chunk, crc)
    return {"bytes": length, "crc32": crc}


def _bytes_here(tensor: Tensor) -> int:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.numel() * local.element_size()


def _is_full(error: BaseException, directory: Path, needed: int) -> bool:
    """Whether no space was left: torch reports what came of that in the end, not the operating system's error."""
    failures = [failure for failure, _ in error.failures.values()] if hasattr(error, "failures") else [error]
    if any(isinstance(failure, OSError) and is_disk_full(failure) for failure in failures):
        return True
    with contextlib.suppress(OSError):
        return shutil.disk_usage(directory.parent).free < needed
    return False
