"""Names and kinds of files: which may be read, which may stand behind a root, and which are not UTF-8.

Plans, splits, records and archives come from other people, and hold names. This is the only place that makes
paths of such names, so that none leads out of the folder that it belongs to.
"""

import errno
import os
import re
import stat
import unicodedata
from io import BufferedReader
from pathlib import Path

from autospine.core.errors import WorkspaceError

LONGEST_NAME = 255
"""Most bytes of a name on the usual file systems."""

_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?: *(?:\..*)?)", re.IGNORECASE
)
"""Names that Windows takes for devices, whatever their endings."""

LARGEST_TEXT = 64 * 2**20
"""Most bytes of a text file that states no other limit."""

_WIDE = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16."""

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def name_fault(name: str) -> str | None:
    """Say why a text is no plain name of a file or folder on every system; None if it is one."""
    if not name.strip(" ."):
        return "an empty name, or one of dots alone"
    if "/" in name or "\\" in name:
        return "a name with a separator of folders"
    if _DRIVE.match(name):
        return "the name of a drive"
    if _CONTROL.search(name):
        return "a name with a control character"
    if _DEVICES.fullmatch(name):
        return "a name that some systems take for a device"
    if (size := _bytes_of(name)) is None or size > LONGEST_NAME:
        return f"a name of more than {LONGEST_NAME} bytes, or of characters that no file can have"
    return None


def folder_name_fault(name: str) -> str | None:
    """Say why a text is no name of a folder that can be made on every system; None if it is one."""
    if fault := name_fault(name):
        return fault
    if name[0] == ".":
        return "a name that begins with a dot, as those of temporary folders do"
    if name[-1] in " .":
        return "a name that ends in a dot or a space, which some systems leave out"
    return "a name with a colon" if ":" in name else None


def path_below(root: Path, *names: str) -> Path:
    """Return the path of a file or folder inside `root`, by names that somebody's file may have stated.

    Args:
        root: Folder that the path must not leave.
        names: Names of folders, one inside the other, and of a file at last.

    Raises:
        WorkspaceError: If a name is no plain one, such as `..`, `a/b` or an absolute path.
    """
    for name in names:
        if fault := name_fault(name):
            raise WorkspaceError(
                f"expected the name of a file or folder in {root}, found {name[:LONGEST_NAME]!r}, {fault}; "
                "mend the file that states it, or ask whoever made it"
            )
    return root.joinpath(*names)


def folder_to_write(root: Path, *names: str) -> Path:
    """Return the path of a folder inside `root` that is going to be written to; it need not exist.

    Whoever hands on a folder may have put a link into it, so that what is written lands elsewhere. The root
    itself may be a link: that is its owner's choice.

    Raises:
        WorkspaceError: If a name is no plain one, or a folder is a link that leads out of `root`.
    """
    path = path_below(root, *names)
    if (target := path.resolve()) != root.resolve() and not target.is_relative_to(root.resolve()):
        raise WorkspaceError(
            f"expected no link at {path} where files are written, found one to {target} outside of {root}; "
            "remove the link"
        )
    return path


def refuse_link(path: Path) -> None:
    """Refuse a file that is about to be written in its place, and is a link to another one.

    Raises:
        WorkspaceError: If it is a link.
    """
    if path.is_symlink():
        raise WorkspaceError(f"expected a file of its own at {path}, found a link; remove the link")


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


def open_file(path: Path) -> BufferedReader:
    """Open a plain file to read its bytes.

    Raises:
        OSError: If it is no plain file, or cannot be read.
    """
    check_file(path)
    return path.open("rb")


def _absent(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if error.errno == errno.ENOENT:
        return f"a link to {path.readlink()}, where there is none" if path.is_symlink() else "no such file"
    return error.strerror or str(error)


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Read a text file in UTF-8, or in UTF-16 where a byte order mark says so; the mark is left out.

    Args:
        path: The file.
        largest: Most bytes; of a larger file nothing is kept.

    Raises:
        OSError: If it is no plain file, too large, in another encoding, or cannot be read.
    """
    with open_file(path) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(f"more than {largest >> 20} MiB")
    wide = data.startswith(_WIDE)
    if b"\0" in data and not wide:
        raise OSError("no text in UTF-8 (it has bytes of zero, as UTF-16 without a byte order mark does)")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(f"no text in UTF-8 (byte {data[error.start]:#04x} at {error.start})") from None


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


def same_name(name: str) -> str:
    """Return one spelling (NFC) of names that look the same: accents may be letters of their own, or not."""
    return unicodedata.normalize("NFC", name)


def is_utf8(path: Path) -> bool:
    """Return whether libraries that take names as UTF-8 can open a file; some end the process if not."""
    return _encodable(str(path))


def escape_non_utf8(text: str) -> str:
    r"""Return a text that can be encoded as UTF-8, with whatever is not written as in `M\udcfcller`."""
    return text.encode(errors="backslashreplace").decode()


def _bytes_of(name: str) -> int | None:
    """Return the length of a name on the disk, None if it cannot be written."""
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:
        return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
