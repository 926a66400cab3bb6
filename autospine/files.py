"""Files that are either complete or unchanged."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

TEMPORARY = ".tmp"
"""In the names of files that are being written."""


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` (same endings) that takes its place when the block succeeds.

    The file's folder is made. On an error the temporary file is removed and `path` is as it was.

    Args:
        path: the file to write.
        durable: wait until the disk has it, so that not even a power cut leaves it empty.
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
        if durable:
            _flush(temporary)
        temporary.replace(path)
        if durable and os.name == "posix":
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in a folder; nothing else may be written there now."""
    for leftover in folder.glob(f".*{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
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
