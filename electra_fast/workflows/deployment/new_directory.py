"""A directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from electra_fast.errors import ConfigError, DiskFullError
from electra_fast.files import DISK_FULL_ADVICE, is_disk_full, sync_directory, temporary_path


@contextlib.contextmanager
def new_directory(target: Path, mark: str, overwrite: bool) -> Iterator[Path]:
    """A folder to write into; it becomes ``target`` if the block ends without an error, and is gone otherwise.

    Args:
        mark: name of a file by which a directory is known as one that was written so before.
        overwrite: replace such a one.

    Raises:
        ConfigError: ``target`` is there and may not be replaced. DiskFullError: no space left.
    """
    _check(target, mark, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_path(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
        sync_directory(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"cannot write {target}: no space left on the disk. {DISK_FULL_ADVICE}") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(target: Path, mark: str, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise ConfigError(f"output {target} is a file: name a directory")
    if not (target / mark).is_file():
        raise ConfigError(f"output {target} holds something else (no {mark}): name another directory")
    if not overwrite:
        raise ConfigError(f"output {target} was written before: name another directory, or give --overwrite")
