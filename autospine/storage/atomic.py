"""Files that are either complete or unchanged."""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from autospine.core.errors import WorkspaceError

TEMPORARY = ".tmp"
"""Part of the names of files that are being written."""

ABANDONED_S = 24 * 3600.0
"""Seconds without a write after which nobody is writing a temporary file any more."""

VISIBLE = "[!.]*"
"""Pattern of the names that are looked at in a folder. Names that begin with a dot are those of what is being
written, of what a killed process has left, and of the system's own files."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the system if a disk, or a user's quota of it, is full."""

_LEFTOVER = re.compile(rf"\.[a-z0-9_]{{8}}{re.escape(TEMPORARY)}(\.\w+){{0,2}}")
"""Names of the files that `replacing` makes, and of the folders beside an image that is being written."""


def check_writable(output: Path) -> None:
    """Find out whether a folder, or the one that it would be made in, can be written to.

    Raises:
        WorkspaceError: If it cannot.
    """
    there = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise WorkspaceError(
            f"expected an output folder that can be written to, found {output} ({error.strerror}); "
            "mend its permissions or name another with -o"
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same endings, that replaces it when the block succeeds.

    The file's folder is made, and what was abandoned in it is removed when this process first writes there.
    After an error the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_once(path.parent.resolve())
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
    except OSError as error:
        if error.errno in DISK_FULL:  # the system does not say where
            error.add_note(f"in {path.parent}")
        raise
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


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, by name, but nothing with a temporary or hidden name; [] without folder."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def remove_abandoned(folder: Path) -> None:
    """Remove abandoned temporary files and folders from a user's folder, where others may be writing.

    What cannot be removed stays: it is nobody's error that it is there.
    """
    for leftover in folder.glob(f".????????{TEMPORARY}*"):
        if _LEFTOVER.fullmatch(leftover.name) and is_abandoned(leftover):
            remove_whole(leftover)


def is_abandoned(path: Path) -> bool:
    """Return whether nothing has been written to a temporary file, or into a temporary folder, for a day."""
    try:
        whole = [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
        touched: float = max(part.lstat().st_mtime for part in whole)
    except OSError:  # it is somebody else's, or gone by now
        return False
    return time.time() - touched > ABANDONED_S


def remove_whole(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def keep_former(path: Path) -> Path:
    """Keep a file that is about to be replaced as `NAME.old` beside it, in place of an older one.

    The file itself stays where it is until then; a link, or what is no file, is renamed.

    Returns:
        Path of what is kept.
    """
    old = path.with_name(f"{path.name}.old")
    if path.is_symlink() or not path.is_file():
        path.replace(old)
        return old
    with replacing(old) as temporary:
        shutil.copyfile(path, temporary)
    return old


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _remove_abandoned_once(folder: Path) -> None:
    remove_abandoned(folder)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
