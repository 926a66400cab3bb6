"""Names and kinds of files: which may be read, and names that are not UTF-8."""

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_file(path: Path) -> None:
    """Refuse what is no plain file: reading a pipe or a device may wait, or go on, without end.

    Raises:
        OSError: If it is none; its text says in a few words what is there instead.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise OSError(_absent(path, error)) from None
    if not stat.S_ISREG(mode):
        raise OSError(f"{_KINDS.get(stat.S_IFMT(mode), 'another kind of entry')} instead of a file")


def _absent(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if error.errno == errno.ENOENT:
        return f"a link to {path.readlink()}, where there is none" if path.is_symlink() else "no such file"
    return error.strerror or str(error)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: If it is no plain file or cannot be read.
        UnicodeDecodeError: If it is not in UTF-8.
    """
    check_file(path)
    return path.read_text(encoding="utf-8")


def named_beside(path: Path, name: str) -> Path:
    """Return the path of a file that another file names, which must lie in the same folder or below it.

    Args:
        path: File that names another.
        name: Name as it is written there.

    Raises:
        OSError: If the name leads elsewhere, also by a link, or to something that is no plain file.
    """
    if "\0" in name:
        raise OSError(f"the name {name!r} of its data file, which no file can have")
    named = path.parent / name
    folder = path.parent.resolve()
    try:
        inside = named.resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):  # absent, or a link to itself: where it would lie counts
        inside = Path(os.path.normpath(folder / name)).is_relative_to(folder)
    if not inside or Path(name).is_absolute():
        raise OSError(f"{name!r} named as its data file, which is not in its folder")
    try:
        check_file(named)
    except OSError as error:
        raise OSError(f"{name!r} named as its data file, and there {error}") from None
    return named


def is_utf8(path: Path) -> bool:
    """Whether libraries that take names as UTF-8 can open a file; some end the process if they cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_non_utf8(text: str) -> str:
    r"""Return a text that can be encoded as UTF-8, with whatever is not written as in `M\udcfcller`."""
    return text.encode(errors="backslashreplace").decode()
