"""Checkpoints that survive a crash at any moment: atomic, checked on reading, the newest few kept.

Where a process has all weights, one writes a file: what ``torch.save`` writes, a zip archive that carries a CRC-32 of
every record. Where they lie in parts, all write a directory together (`sharded`). Everything is verified before
anything is unpickled, and unpickling is restricted to tensors and plain values.
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

from .ranks import ALONE, Ranks
from .sharded import STATE, check_sharded, remove, write_sharded

FORMAT = "electra-fast checkpoint"
VERSION = 2  # 1 knew one process only
DAMAGED = ".damaged"  # put behind the name of a file that was found so, which then no longer counts
TENSORS = "tensors"  # in a state: tensors that lie in parts; in a state that was read: the directory they are in
_NAME = re.compile(r"step-\d+(\.pt)?")


@dataclass(frozen=True)
class CheckpointDirectory:
    """The checkpoints of one run, ``step-00001234.pt`` or ``step-00001234/``; ``keep`` newest stay."""

    path: Path
    keep: int = 3

    def files(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((path for path in self.path.glob("step-*") if _NAME.fullmatch(path.name)), key=step_of)

    def save(self, step: int, state: dict[str, Any], ranks: Ranks = ALONE) -> Path:
        """Write the checkpoint of ``step``, then delete all but the newest ``keep``; a call of all processes.

        Raises:
            DiskFullError: no space left; no part of the new checkpoint remains and the older ones are untouched.
        """
        state = {"format": FORMAT, "version": VERSION, "step": step, **state}
        target = self.path / f"step-{step:08d}"
        ranks.agree(lambda: self.path.mkdir(parents=True, exist_ok=True))
        try:
            if TENSORS in state:
                write_sharded(target, state.pop(TENSORS), state, ranks)
            else:
                target = target.with_suffix(".pt")
                ranks.agree(lambda: _write(target, state))
        except DiskFullError as error:
            older = [path for path in self.files() if path != target]
            safe = f"{older[-1]} is intact" if older else "no checkpoint was written before"
            raise DiskFullError(
                f"no space left on the disk for the checkpoint of step {step} in {self.path}; {safe}. "
                "Free some space and continue with --resume"
            ) from error
        if ranks.first:
            for old in self.files()[: -self.keep]:
                remove(old)
        return target

    def newest(self) -> Path | None:
        """The newest complete checkpoint, None if there is none."""
        files = self.files()
        return files[-1] if files else None

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
                    remove(bad.with_name(bad.name + DAMAGED))
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
            remove(leftover)

    def _unfinished(self) -> Iterator[Path]:
        return self.path.glob(temporary_path(self.path / "step-*").name)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def load_checkpoint(path: Path, verified: bool = False) -> dict[str, Any]:
    """Read one checkpoint onto the CPU after comparing every CRC-32; of a directory, all but the tensors.

    Args:
        verified: do not compare the files of a directory, another process has.

    Raises:
        CheckpointError: missing, truncated or changed, or of another version.
    """
    sharded = path.is_dir()
    if sharded and not verified:
        check_sharded(path)
    file = path / STATE if sharded else path
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: CRC-32 of {broken} differs")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except Exception as error:  # a damaged archive or pickle fails in a dozen ways, all of which mean the same
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of electra-fast pretrain")
    if state["version"] not in (1, VERSION):
        raise CheckpointError(
            f"checkpoint {path} has format version {state['version']}, this electra_fast reads versions 1 to {VERSION}"
        )
    if state["version"] == 1 and "metrics" in state:
        state["metrics"] = [state["metrics"]]  # of each process since
    if sharded:
        state[TENSORS] = path
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    """``torch.save``, with the operating system's error where torch reports its own consequence of it."""
    with atomic_writer(path) as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
