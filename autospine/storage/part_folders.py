"""Folders in which the jobs that share the work on one folder keep their records until all are done.

In `FOLDER/.parts`, part 2 of 4 has the folder `2-of-4`, in which it alone writes, and beside it the lock
`2-of-4.lock` while a process is at it.
"""

import re
from pathlib import Path

from autospine.storage.file_names import folder_to_write

PARTS = ".parts"
"""Name of the folder that has those of all parts."""

_PART = re.compile(r"[0-9]+-of-[0-9]+")


def part_folder(folder: Path, number: int, count: int) -> Path:
    """Return the folder of a part, which need not exist.

    Raises:
        WorkspaceError: If a link leads out of `folder`.
    """
    return folder_to_write(folder, PARTS, f"{number}-of-{count}")


def part_folders(folder: Path) -> list[Path]:
    """Return the folders of parts that there are, by name; what is a link is passed over."""
    place = folder / PARTS
    if place.is_symlink() or not place.is_dir():
        return []
    return sorted(
        part
        for part in place.iterdir()
        if _PART.fullmatch(part.name) and part.is_dir() and not part.is_symlink()
    )


def part_locks(folder: Path) -> list[Path]:
    """Return the locks of the parts that were begun in a folder, by name; killed processes leave theirs."""
    place = folder / PARTS
    return [] if place.is_symlink() else sorted(place.glob("*-of-*.lock"))


def part_lock(place: Path) -> Path:
    """Return the lock of the part whose folder this is."""
    return place.with_name(f"{place.name}.lock")
