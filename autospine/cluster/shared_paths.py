"""Files by which the workers of a cluster show that they reach the folders of a command by the same paths."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autospine.storage.atomic import TEMPORARY


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPaths:
    """What this process and all workers of its cluster reach by the same absolute paths."""

    written: Path
    """Folder that results are written to; made if absent."""

    read: tuple[Path, ...] = ()
    """Files and folders that are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFile:
    """A file that a worker has to find."""

    place: str
    """The path of `SharedPaths` that it stands for."""

    path: str
    """Its own path."""

    size: int
    """Its size in bytes."""

    def is_here(self) -> bool:
        """Return whether this process finds it."""
        try:
            return Path(self.path).stat().st_size == self.size
        except OSError:
            return False


@contextmanager
def shared_files(shared: SharedPaths) -> Iterator[tuple[SharedFile, ...]]:
    """Yield a new file in the folder that is written to, and a file of each path that is read."""
    shared.written.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=shared.written, prefix=".", suffix=TEMPORARY) as note:
        note.write(b"shared")
        note.flush()
        os.fsync(note.fileno())  # before that a network file system need not show it to others
        yield (_shared_file(shared.written, Path(note.name)), *_existing(shared.read))


def _existing(paths: Sequence[Path]) -> Iterator[SharedFile]:
    for place in paths:
        found = place if place.is_file() else _first_file(place)
        if found is not None:
            yield _shared_file(place, found)


def _first_file(folder: Path) -> Path | None:
    """Return the first file within a folder; None where there is none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        if shown := sorted(name for name in names if not name.startswith(".")):
            return Path(parent, shown[0])
    return None


def _shared_file(place: Path, path: Path) -> SharedFile:
    return SharedFile(place=str(place), path=str(path), size=path.stat().st_size)
