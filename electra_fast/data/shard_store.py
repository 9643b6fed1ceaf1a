"""Where the shards of a corpus are: in a directory, or behind an fsspec URL with copies of a few on the local disk."""

from __future__ import annotations

import contextlib
import fcntl
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from electra_fast.data.manifest import MANIFEST_NAME, Corpus, Manifest
from electra_fast.data.shards import ShardEntry, verify_shard
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import ConfigError, ElectraError, ShardError
from electra_fast.files import atomic_writer

_BLOCK_BYTES = 1 << 22
_PAUSES = (1.0, 4.0)  # seconds before another try: networks and object stores fail now and then
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


class ShardStore(Protocol):
    """The shards of one split, by number."""

    entries: list[ShardEntry]

    def fetch(self, number: int) -> Path:
        """The file of a shard, whole and checked; may take long, and may be called from several threads."""
        ...

    def release(self, number: int) -> None:
        """A shard is not needed soon: a copy of it may go. Who has it mapped keeps it."""
        ...


@dataclass(frozen=True)
class LocalShards:
    """Shards in a directory, compared with the manifest when the corpus was opened."""

    directory: Path
    entries: list[ShardEntry]

    def fetch(self, number: int) -> Path:
        return self.directory / self.entries[number].name

    def release(self, number: int) -> None:
        pass


@dataclass(frozen=True)
class RemoteShards:
    """Shards behind an fsspec file system, copied to ``cache`` when they are needed, size and crc32 compared.

    Processes of one machine may share a cache: a shard is copied by one of them while the others wait.
    """

    filesystem: Any
    root: str
    cache: Path
    entries: list[ShardEntry]

    def _path(self, number: int) -> Path:
        entry = self.entries[number]
        return self.cache / f"{entry.crc32:08x}-{entry.name.replace('/', '-')}"

    def fetch(self, number: int) -> Path:
        """Raises ShardError if the shard is missing, cannot be read, or is not what the manifest says."""
        path, entry = self._path(number), self.entries[number]
        with _one_at_a_time(path):
            if not path.exists():
                self._copy(entry, path)
        return path

    def release(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)  # not its lock, which another process may hold

    def _copy(self, entry: ShardEntry, path: Path) -> None:
        source = f"{self.root}/{entry.name}"
        for pause in (*_PAUSES, None):
            try:
                size, crc = self._copy_once(source, path, entry)
                if (size, crc) == (entry.bytes, entry.crc32):
                    return
                problem = f"it has {size} bytes and crc32 {crc:08x}, expected {entry.bytes} and {entry.crc32:08x}"
            except ElectraError:
                raise
            except Exception as error:  # every kind of file system has kinds of its own
                if str(getattr(error, "filename", None)).startswith(str(self.cache)):
                    raise
                if isinstance(error, FileNotFoundError):
                    raise ShardError(f"shard {source} is missing: copy the corpus there again") from None
                problem = f"it cannot be read: {error or type(error).__name__}"
            if pause is None:
                raise ShardError(f"shard {source} is damaged or out of reach: {problem}")
            time.sleep(pause)

    def _copy_once(self, source: str, path: Path, entry: ShardEntry) -> tuple[int, int]:
        """Bytes and crc32 of what came; the file takes its name only if they are right."""
        size = crc = 0
        with contextlib.suppress(_WrongContentError), self.filesystem.open(source, "rb") as stream:
            with atomic_writer(path) as copy:
                while block := stream.read(_BLOCK_BYTES):
                    copy.write(block)
                    size += len(block)
                    crc = zlib.crc32(block, crc)
                if (size, crc) != (entry.bytes, entry.crc32):
                    raise _WrongContentError
        return size, crc


class _WrongContentError(Exception):
    pass


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class RemoteCorpus(Corpus):
    """A corpus behind a URL: tokenizer and held-out shards are local copies, training shards come when needed.

    Attributes:
        directory: of the copies.
        url: as given.
        training: the shards to train on.
    """

    url: str
    training: RemoteShards


def is_url(path: object) -> bool:
    """Whether a corpus is named by an fsspec URL such as s3://bucket/corpus."""
    return "://" in str(path)


def open_remote_corpus(url: str, cache: Path) -> RemoteCorpus:
    """Open a prepared corpus on any file system that fsspec reaches.

    Args:
        url: of the directory that ``prepare`` wrote, or where its files were copied to.
        cache: local directory for copies.

    Raises:
        ConfigError: fsspec, or what it needs for this kind of URL, is not installed.
        ShardError: no corpus there, or a damaged one.
    """
    filesystem, root = _filesystem(url)
    for name in (MANIFEST_NAME, *_TOKENIZER_FILES):
        try:
            content = filesystem.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            if name == "vocab.txt":  # only a WordPiece has one
                continue
            raise ShardError(f"{url} is not a prepared corpus: it holds no {name}") from None
        except OSError as error:
            raise ShardError(f"{url} cannot be read: {error}") from None
        cache.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(cache / name), atomic_writer(cache / name) as stream:
            stream.write(content)
    manifest = Manifest.load(cache)
    if Tokenizer.load(cache / "tokenizer.json").hash != manifest.tokenizer_hash:
        raise ShardError(
            f"the tokenizer in {url} is not the one its shards were made with: copy the corpus there again"
        )
    held_out = RemoteShards(filesystem, root, cache, manifest.splits["validation"].shards)
    copies = [held_out.fetch(number) for number in range(len(held_out.entries))]
    pairs = zip(copies, held_out.entries, strict=True)
    return RemoteCorpus(
        directory=cache,
        manifest=manifest,
        shards={"validation": [verify_shard(cache, _renamed(entry, path.name)) for path, entry in pairs]},
        url=url,
        training=RemoteShards(filesystem, root, cache, manifest.splits["train"].shards),
    )


def _renamed(entry: ShardEntry, name: str) -> ShardEntry:
    return ShardEntry(name, entry.bytes, entry.crc32, entry.examples, entry.tokens)


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        filesystem, root = import_module("fsspec.core").url_to_fs(url)
    except ImportError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"reading {url} needs the package fsspec and the one for this kind of URL (s3fs, gcsfs, adlfs, …): {reason}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"data {url} is no URL that fsspec knows: {error}") from None
    return filesystem, root.rstrip("/")
