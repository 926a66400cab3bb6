"""Files that are either complete or unchanged."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

TEMPORARY = ".tmp"
"""Part of the names of files that are being written."""

ABANDONED_S = 24 * 3600.0
"""Seconds without a write after which nobody is writing a temporary file any more."""

_LEFTOVER = re.compile(rf"\.[a-z0-9_]{{8}}{re.escape(TEMPORARY)}(\.\w+){{0,2}}")
"""Names of the files that `replacing` makes."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same endings, that replaces it when the block succeeds.

    The file's folder is made. After an error the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=".", suffix=f"{TEMPORARY}{''.join(path.suffixes[-2:])}", dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Here, because what was written may have taken the temporary file's place.
        temporary.chmod(0o666 & ~_umask())
        rename_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename_durably(complete: Path, path: Path) -> None:
    """Rename a complete file to `path`, on the same file system, so that not even a power cut spoils it.

    Without the wait for the disk a new name can outlive the power cut and its content not: the file would
    count as done and be empty. It costs about a millisecond, and the time of writing what is large.
    """
    _flush(complete)
    complete.replace(path)
    if os.name == "posix":
        with suppress(OSError):  # Some network file systems cannot do so for a folder.
            _flush(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder that nobody is writing to."""
    for leftover in folder.glob(f".*{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove abandoned files of `replacing` from a user's folder, where others may be writing."""
    for leftover in folder.glob(f".????????{TEMPORARY}*"):
        with suppress(FileNotFoundError):
            if _LEFTOVER.fullmatch(leftover.name) and time.time() - leftover.stat().st_mtime > ABANDONED_S:
                leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
