"""Checkpoints that survive a crash at any moment: one file a step, atomic, checked on reading, the newest few kept.

A file is what ``torch.save`` writes, a zip archive that carries a CRC-32 of every record. All of them are verified
before anything is unpickled, and unpickling is restricted to tensors and plain values.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electra_fast.errors import CheckpointError, DiskFullError
from electra_fast.files import atomic_writer, temporary_path

FORMAT = "electra-fast checkpoint"
VERSION = 1
DAMAGED = ".damaged"  # put behind the name of a file that was found so, which then no longer counts
_NAME = re.compile(r"step-\d+\.pt")


@dataclass(frozen=True)
class CheckpointDirectory:
    """The checkpoints of one run, ``step-00001234.pt``; ``keep`` newest stay."""

    path: Path
    keep: int = 3

    def files(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((path for path in self.path.glob("step-*.pt") if _NAME.fullmatch(path.name)), key=step_of)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step``, then delete all but the newest ``keep``.

        Raises:
            DiskFullError: no space left; no part of the new file remains and the older ones are untouched.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"step-{step:08d}.pt"
        try:
            with atomic_writer(target) as stream:
                _save({"format": FORMAT, "version": VERSION, "step": step, **state}, stream)
        except DiskFullError as error:
            older = [path for path in self.files() if path != target]
            safe = f"{older[-1]} is intact" if older else "no checkpoint was written before"
            raise DiskFullError(
                f"no space left on the disk for the checkpoint of step {step} in {self.path}; {safe}. "
                "Free some space and continue with --resume"
            ) from error
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)
        return target

    def load_newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole checkpoint (None if none was ever written), and a sentence for each damaged one passed over.

        If there is a whole one, the damaged ones are renamed, so that they are neither kept in its place nor called
        good later on.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged.
        """
        self.remove_unfinished()
        damaged: dict[Path, str] = {}
        files = self.files()
        for path in reversed(files):
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:
                damaged[path] = str(error)
            else:
                for bad in damaged:
                    os.replace(bad, bad.with_name(bad.name + DAMAGED))
                return state, list(damaged.values())
        if files:
            raise CheckpointError(
                f"all {len(files)} checkpoints in {self.path} are damaged ({damaged[files[-1]]}). Delete "
                "that directory and start the run again"
            )
        return None, []

    def remove_unfinished(self) -> None:
        """Delete what a killed process left of a checkpoint it had not finished."""
        for leftover in self._unfinished():
            leftover.unlink(missing_ok=True)

    def _unfinished(self) -> Iterator[Path]:
        return self.path.glob(temporary_path(self.path / "step-*.pt").name)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU after comparing every record's CRC-32.

    Raises:
        CheckpointError: missing, truncated or changed, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: CRC-32 of {broken} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except Exception as error:  # a damaged archive or pickle fails in a dozen ways, all of which mean the same
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of electra-fast pretrain")
    if state["version"] != VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format version {state['version']}, this electra_fast reads version {VERSION}"
        )
    return state


def _save(state: dict[str, Any], stream) -> None:
    """``torch.save``, with the operating system's error where torch reports its own consequence of it."""
    try:
        torch.save(state, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
