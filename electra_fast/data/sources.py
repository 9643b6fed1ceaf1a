"""The files of a text corpus: finding them, telling their format from the name, reading their bytes decompressed."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Protocol

from electra_fast.errors import CorpusError

BLOCK_BYTES = 1 << 20
_FORMATS = {
    **{".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl"},
    **{".parquet": "parquet", ".arrow": "arrow"},
}
_COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
_LARGEST_WINDOW = 1 << 31  # what `zstd --long=31` makes; unless told, the library refuses more than 128 MiB


@dataclass(frozen=True)
class Source:
    """One input file. ``format`` is text, jsonl, parquet or arrow; ``compression`` a suffix like ".gz", or empty."""

    path: Path
    format: str
    compression: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Sources:
    """The files to read, in order, and those a directory held that are no text as far as their names tell."""

    files: list[Source]
    skipped: list[Path]

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self.files)


def find_sources(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> Sources:
    """Files, directories (recursive, hidden files left out) and glob patterns, each in sorted order.

    A file that is named, or matched by a pattern, is read whatever its name; plain text is assumed where the name says
    nothing else. From a directory only names without a suffix and .txt, .text, .jsonl, .ndjson, .parquet, .arrow are
    taken,
    the first four also with .gz, .xz, .zst or .bz2 behind them.

    Args:
        inputs: paths or patterns.
        exclude: a directory whose files are no input (the output).

    Raises:
        CorpusError: an input does not exist, matches nothing, holds nothing that looks like text, or comes twice.
    """
    paths: list[Path] = []
    skipped: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = _walk(path)
            taken = [name for name in found if _looks_like_text(name)]
            if not taken:
                seen = ", ".join(sorted({name.suffix for name in found})[:8]) or "no file at all"
                raise CorpusError(
                    f"directory {path} holds no .txt, .jsonl, .parquet or .arrow file (found: {seen}). "
                    f"Name other files by a pattern, for instance --input '{path}/*.md'"
                )
            paths += taken
            skipped += [name for name in found if not _looks_like_text(name)]
        elif path.exists():
            paths.append(path)
        elif glob.has_magic(str(given)):
            found = sorted(Path(name) for name in glob.glob(str(given), recursive=True) if not Path(name).is_dir())
            if not found:
                raise CorpusError(f"no file matches '{given}'. Check the pattern and the directory it starts from")
            paths += found
        else:
            raise CorpusError(f"input {path} does not exist. Give a file, a directory or a quoted glob pattern")
    if exclude is not None:
        inside = exclude.resolve()
        paths = [path for path in paths if not path.resolve().is_relative_to(inside)]
        skipped = [path for path in skipped if not path.resolve().is_relative_to(inside)]
    check_unique(paths)
    return Sources([_describe(path) for path in paths], skipped)


def _walk(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )


def _split_name(path: Path) -> tuple[str, str]:
    """(suffix of the content, suffix of the compression), both lower case, either may be empty."""
    compression = path.suffix.lower() if path.suffix.lower() in _COMPRESSIONS else ""
    return (Path(path.stem) if compression else path).suffix.lower(), compression


def _looks_like_text(path: Path) -> bool:
    suffix, _ = _split_name(path)
    return suffix in _FORMATS or suffix == ""


def _describe(path: Path) -> Source:
    suffix, compression = _split_name(path)
    form = _FORMATS.get(suffix, "text")
    if form in ("parquet", "arrow") and compression:
        raise CorpusError(f"{path}: {form} is compressed inside; unpack the {compression} file first")
    status = path.stat()
    return Source(path, form, compression, status.st_size, status.st_mtime_ns)


def check_unique(paths: Iterable[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise CorpusError(f"input {path} is given twice. Name every file once, directories and patterns included")
        seen.add(path.resolve())


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class ByteStream:
    """The decompressed bytes of a source, block by block. ``position`` counts bytes of the file itself, for progress.

    Raises:
        CorpusError: the file cannot be opened, or is damaged or cut short.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self._file: BinaryIO = open(source.path, "rb")
        except OSError as error:
            raise CorpusError(f"cannot read {source.path}: {error.strerror}") from None
        self._reader: _Readable = _DECOMPRESSORS[source.compression](self._file)

    @property
    def position(self) -> int:
        return self._file.tell()

    def blocks(self) -> Iterator[bytes]:
        """Blocks of about 1 MiB until the end of the file."""
        path = self.source.path
        try:
            while block := self._reader.read(BLOCK_BYTES):
                yield block
        except EOFError:
            raise CorpusError(f"{path} is cut short: it ends inside its compressed data. Copy it again") from None
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, ValueError) as error:
            raise CorpusError(f"{path} is damaged, or not a {self.source.compression} file: {error}") from None
        except OSError as error:
            raise CorpusError(f"cannot read {path}: {error.strerror or error}") from None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ZstandardReader:
    """Frames of a .zst file one after the other; a file cut short is an ``EOFError``, as in the standard library."""

    def __init__(self, file: BinaryIO) -> None:
        self._module = optional_module("zstandard", "a .zst file")
        self._file = file
        self._frame = None
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while True:
            data = self._pending or self._file.read(size // 16)  # what comes out may be much longer
            self._pending = b""
            if not data:
                if self._frame is not None:
                    raise EOFError
                return b""
            if self._frame is None:
                self._frame = self._module.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
            try:
                block = self._frame.decompress(data)
            except self._module.ZstdError as error:
                raise ValueError(error) from None
            if self._frame.eof:
                self._pending = self._frame.unused_data
                self._frame = None
            if block:
                return block


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], _Readable]] = {
    "": lambda file: file,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": _ZstandardReader,
}


def optional_module(name: str, what: str) -> ModuleType:
    """Import an optional dependency where it is needed.

    Raises:
        CorpusError: it is not installed; says how to.
    """
    try:
        return import_module(name)
    except ImportError:
        raise CorpusError(f"reading {what} needs the package {name}: pip install {name}") from None
