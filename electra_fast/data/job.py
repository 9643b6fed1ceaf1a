"""The state of a prepare job on disk, so that a job that was stopped at any point goes on and ends with the same bytes.

``job.json`` names the job (options and input files), how far it is, and the shards that are finished. What is tokenised
but fills no shard yet is beside it in ``pending-…`` shards whenever the state is saved. Files that the state does not
name are leftovers of a crash and are written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from electra_fast.data.corpus import Position
from electra_fast.data.manifest import FORMAT, JOB_NAME, MANIFEST_NAME, PLAN_NAME, SPLITS, Split
from electra_fast.data.shards import Examples, ShardEntry, verify_shard, write_shard
from electra_fast.data.tokenise import UnitResult
from electra_fast.errors import ConfigError, DiskFullError, ShardError
from electra_fast.files import DISK_FULL_ADVICE, is_disk_full, temporary_path, write_text

PLAN_FORMAT = "electra-fast plan of a shared prepare job"
PARTS_NAME = "parts"  # folder of the pieces of a shared job
_FORMAT = "electra-fast prepare job"
_VERSION = 1
_OWN_FILES = (
    *(MANIFEST_NAME, JOB_NAME, PLAN_NAME, "part.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("train-*.shard", "validation-*.shard", "pending-*.shard"),
)


@dataclass
class Job:
    """A job in ``directory``. ``identity`` is what must be equal to go on with it."""

    directory: Path
    identity: dict[str, Any]
    shard_tokens: int
    tokenizer_hash: str | None = None
    position: Position = field(default_factory=Position)
    bytes_done: int = 0
    long_lines: int = 0
    saved_progress: bool = False
    splits: dict[str, Split] = field(default_factory=lambda: {name: Split() for name in SPLITS})
    _pending: dict[str, list[Examples]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    _saved_pending: list[str] = field(default_factory=list)
    _saves: int = 0

    @property
    def documents(self) -> int:
        return sum(split.documents for split in self.splits.values())

    @property
    def tokens(self) -> int:
        return sum(split.tokens for split in self.splits.values())

    def add(self, result: UnitResult, position: Position, bytes_done: int) -> None:
        """Take in the result of the unit that ends at ``position``; a full shard is written and the state saved."""
        for name, part in result.splits.items():
            counts = self.splits[name]
            counts.documents += part.documents
            counts.lines += part.lines
            counts.examples += len(part.examples.lengths)
            counts.two_segment_examples += int(np.count_nonzero(part.examples.first_lengths < part.examples.lengths))
            counts.tokens += len(part.examples.tokens)
            counts.unknown_tokens += part.unknown_tokens
            counts.truncated_tokens += part.truncated_tokens
            self._pending[name].append(part.examples)
        self.long_lines += result.long_lines
        self.position = position
        self.bytes_done = bytes_done
        full = [name for name in SPLITS if self._pending_tokens(name) >= self.shard_tokens]
        for name in full:
            self._write_shard(name)
        if full:
            self.save()

    def finish(self) -> None:
        """Write what is left as the last shards, and the state."""
        for name in SPLITS:
            if self._pending_tokens(name):
                self._write_shard(name)
        self.save()

    def save(self) -> None:
        """Make the state durable: a crash from here on loses only what comes after."""
        self._saves += 1
        entries: dict[str, dict[str, Any] | None] = {}
        for name in SPLITS:
            entries[name] = None
            if self._pending_tokens(name):
                path = self.directory / f"pending-{name}-{self._saves:05d}.shard"
                entries[name] = asdict(write_shard(path, Examples.concatenate(self._pending[name])))
        state = {
            "format": _FORMAT,
            "version": _VERSION,
            "identity": self.identity,
            "tokenizer_hash": self.tokenizer_hash,
            "position": asdict(self.position),
            "bytes_done": self.bytes_done,
            "long_lines": self.long_lines,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "pending": entries,
            "saves": self._saves,
        }
        write_text(self.directory / JOB_NAME, json.dumps(state, indent=2, ensure_ascii=False) + "\n")
        kept = [entry["name"] for entry in entries.values() if entry]
        for name in self._saved_pending:
            if name not in kept:
                (self.directory / name).unlink(missing_ok=True)
        self._saved_pending = kept
        self.saved_progress = self.position != Position()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ShardError: a shard the state names is missing or damaged.
        """
        self.tokenizer_hash = state["tokenizer_hash"]
        self.position = Position(**state["position"])
        self.bytes_done = state["bytes_done"]
        self.long_lines = state["long_lines"]
        self.splits = {name: Split.from_json(split) for name, split in state["splits"].items()}
        self._saves = state["saves"]
        self.saved_progress = self.position != Position()
        for split in self.splits.values():
            for entry in split.shards:
                verify_shard(self.directory, entry)
        for name, entry in state["pending"].items():
            if entry:
                examples = verify_shard(self.directory, ShardEntry(**entry)).examples()
                self._pending[name] = [examples]
                self._saved_pending.append(entry["name"])

    def clean_up(self) -> None:
        """Remove what a crash may have left: temporary files and pending shards that the state does not name."""
        for path in self.directory.glob("pending-*.shard"):
            if path.name not in self._saved_pending:
                path.unlink(missing_ok=True)
        _remove_unfinished(self.directory)

    def _pending_tokens(self, name: str) -> int:
        return sum(len(examples.tokens) for examples in self._pending[name])

    def _write_shard(self, name: str) -> None:
        shards = self.splits[name].shards
        path = self.directory / f"{name}-{len(shards):05d}.shard"
        shards.append(write_shard(path, Examples.concatenate(self._pending[name])))
        self._pending[name] = []


def read_state(directory: Path) -> dict[str, Any] | None:
    """The saved state of the job in a directory, or None if there is none.

    Raises:
        ShardError: it is damaged or of another version.
    """
    path = directory / JOB_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        if not is_prepared(directory):  # a job.json of someone else's
            return None
        raise ShardError(f"{path} is damaged ({error}). Start again with --overwrite") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        return None
    if state.get("version") != _VERSION:
        raise ShardError(f"{path} was written by another version of electra_fast. Start again with --overwrite")
    return state


def is_prepared(directory: Path) -> bool:
    """Whether the content of a manifest.json or job.json says that prepare wrote it: other programs use these names."""
    for name, form in ((MANIFEST_NAME, FORMAT), (JOB_NAME, _FORMAT), (PLAN_NAME, PLAN_FORMAT)):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            value = json.loads((directory / name).read_text(encoding="utf-8"))
            if isinstance(value, dict) and value.get("format") == form:
                return True
    return False


def check_identity(directory: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare the job on disk with the one that is asked for.

    What was read with errors="strict" is the same with "replace", so that a job stopped by a bad byte can go on.

    Raises:
        ConfigError: they differ; names the first difference.
    """
    for key in {**wanted, **stored}:
        old, new = stored.get(key), wanted.get(key)
        if old == new or (key, old, new) == ("errors", "strict", "replace"):
            continue
        if key == "inputs":
            raise ConfigError(
                f"the input files are not those {directory} was made from (files, their sizes or times differ). "
                "Use --overwrite to start again, or another --output"
            )
        raise ConfigError(
            f"{directory} was made with {key} = {old}, asked for is {new}. "
            "Use --overwrite to start again, or another --output"
        )


def remove_own_files(directory: Path) -> None:
    """Remove what prepare writes, the manifest first, and nothing else, from a directory that `is_prepared` or new."""
    for pattern in _OWN_FILES:
        for path in sorted(directory.glob(pattern)):
            path.unlink(missing_ok=True)
    _remove_unfinished(directory)
    for folder in (*directory.glob(f"{PARTS_NAME}/[0-9]*"), directory / PARTS_NAME):
        if folder.name != PARTS_NAME:
            remove_own_files(folder)
        with contextlib.suppress(OSError):  # not there, or it holds something else
            folder.rmdir()


def _remove_unfinished(directory: Path) -> None:
    """Remove files that a crash left under their temporary names."""
    for pattern in _OWN_FILES:
        for path in directory.glob(temporary_path(directory / pattern).name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_directory(directory: Path) -> Iterator[bool]:
    """Make the output directory if need be and keep other jobs out of it; gives whether it was made.

    Raises:
        ConfigError: it is a file, cannot be made or written, or another job is at work in it.
        DiskFullError: there is no space for it.
    """
    created = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except FileExistsError:
        raise ConfigError(f"output {directory} is a file, expected a directory to write to") from None
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"cannot make {directory}: no space left on the disk. {DISK_FULL_ADVICE}") from None
        raise ConfigError(f"cannot write to output {directory}: {error.strerror}") from None
    try:
        _lock(directory, descriptor)
        yield created
    finally:
        os.close(descriptor)


def _lock(directory: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another process is writing to {directory}: wait for it, or give another --output") from None


def is_at_work(directory: Path) -> bool:
    """Whether a process has the directory open with `open_directory`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
