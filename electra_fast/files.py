"""Writing a file so that a reader, or a crash, never meets half of it.

The content goes to a temporary file in the same folder, is flushed to the disk, and takes its final name in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from electra_fast.errors import DiskFullError

DISK_FULL_ADVICE = "Free some there and run the same command again (with --resume if training had begun)"


def is_disk_full(error: OSError) -> bool:
    """Whether there is no space on the disk, or the user's quota on it is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def temporary_path(path: Path) -> Path:
    """The name under which ``path`` is written before it is complete: fixed, so that a crash leaves at most one."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open ``path`` for writing bytes; it appears, whole, only if the block ends without an error.

    Raises:
        DiskFullError: no space left. The temporary file is removed and an older ``path`` is untouched.
    """
    target = Path(path)
    temporary = temporary_path(target)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and is_disk_full(error):
            raise DiskFullError(f"cannot write {target}: no space left on the disk. {DISK_FULL_ADVICE}") from error
        raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, atomically."""
    with atomic_writer(path) as stream:
        stream.write(text.encode("utf-8"))
