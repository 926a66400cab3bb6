"""Locks on work that one process does at a time: one kind waits for the other process, one refuses.

Both are files that the operating system locks for as long as the process lives, so that a lock is free as
soon as its process has ended, however that ended.
"""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autospine.core.errors import AutospineError, WorkspaceError
from autospine.storage.atomic import TEMPORARY, is_abandoned, remove_whole
from autospine.storage.file_names import read_text, refuse_link
from autospine.storage.serialization import parse_json
from autospine.system.log import get_logger

log = get_logger(__name__)

BEAT_SECONDS = 15.0
"""Time between two heartbeats of the process that holds a lock: it touches the file."""

MISSED_BEATS = 12
"""Missed heartbeats after which another machine's lock counts as stale."""

SCRATCH = ".autospine-"
"""First part of the names of scratch folders, which end in `TEMPORARY`."""

SCRATCH_OWNER = "owner.lock"
"""Lock in a scratch folder, which the process that made it holds."""


@contextmanager
def waiting_lock(path: Path, work: str) -> Iterator[None]:
    """Keep other processes from the same work; if one is at it already, say so and wait until it is done.

    Args:
        path: The lock's file. Its folder is made; the file is removed afterwards.
        work: What the other process is doing, as in "scores the folds of ...".
    """
    refuse_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    if not _acquired(lock):
        log.info("another process %s; waiting for it", work)
        lock.acquire()
    try:
        yield
    finally:
        _removed(path)
        lock.release()


@contextmanager
def heartbeat_lock(
    path: Path, work: str, error: type[AutospineError], *, beat_seconds: float = BEAT_SECONDS
) -> Iterator[None]:
    """Refuse if another process is at the same work, on this machine or another.

    The content of the file is for people, and for other machines: network file systems do not always pass
    locks on. There a lock counts for as long as its holder touches the file, which is watched where the file
    names another machine: a container or a job that was killed comes back under another name. Two machines
    that begin within the same moment may both get the lock, and one that sleeps for minutes may lose it.

    Args:
        path: The lock's file. Its folder is made; the file is removed afterwards.
        work: The work that is done once at a time, as in "one training of ...".
        error: Raised where the work is refused.
        beat_seconds: Time between two heartbeats.

    Raises:
        AutospineError: If another process holds the lock, or one of another machine may do so; of the type
            `error`.
    """
    refuse_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _may_be_held_elsewhere(path) and not _stale(path, work):
        raise error(_refusal(path, work, alive=_beat_seconds(path) is not None))
    lock = FileLock(path)
    if not _acquired(lock):
        raise error(_refusal(path, work, alive=True))
    ended = threading.Event()
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": time.time()}
        with suppress(PermissionError):  # Windows lets nobody write to a file that is locked.
            beats = {"beat_seconds": beat_seconds} if _can_be_touched(path) else {}
            path.write_text(json.dumps(owner | beats), encoding="utf-8")
        threading.Thread(target=_beat, args=(path, beat_seconds, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        _removed(path)
        lock.release()


def is_held(path: Path) -> bool:
    """Tell whether a heartbeat lock is held, without getting or touching it; False if that cannot be known.

    On this machine the process that the file names has to live, on another one it has to have touched the
    file of late.
    """
    owner = _owner(path)
    if owner is None:
        return False
    if owner.get("host") == socket.gethostname():
        import psutil

        try:
            # A process that began after the lock has only the number of its holder.
            return bool(psutil.Process(owner["pid"]).create_time() <= owner["began"] + 1.0)
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False
    touched, beat = _touched(path), _beat_seconds(path)
    return touched is not None and beat is not None and time.time() - touched / 1e9 < MISSED_BEATS * beat


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Get a heartbeat lock for a moment if nobody holds it, here or on another machine.

    Args:
        path: The lock's file in a folder that exists; it is removed afterwards.

    Yields:
        Whether that worked; nothing is locked otherwise.
    """
    refuse_link(path)
    lock = FileLock(path)
    if is_held(path) or not _acquired(lock):
        yield False
        return
    try:
        yield True
    finally:
        _removed(path)
        lock.release()


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new empty folder for intermediate files; it is removed afterwards with whatever is left in it.

    Scratch folders of processes that were killed are removed before: at once where the process was one of
    this machine, which the operating system knows; else when nothing in them was touched for a day.

    Args:
        parent: Folder that it is made in; what is complete can be moved from one to the other.

    Raises:
        OSError: If it cannot be made.
    """
    for other in parent.glob(f"{SCRATCH}*{TEMPORARY}"):
        if not other.is_symlink() and _left_behind(other):
            remove_whole(other)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, suffix=TEMPORARY, dir=parent))
    try:
        with heartbeat_lock(folder / SCRATCH_OWNER, f"one user of {folder}", WorkspaceError):
            (folder / "files").mkdir()
            yield folder / "files"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _left_behind(folder: Path) -> bool:
    """Return whether the process that made a scratch folder has ended; the lock names it once it is held."""
    owner = _owner(folder / SCRATCH_OWNER)
    if owner is None or owner.get("host") != socket.gethostname():
        return is_abandoned(folder)
    try:
        lock = FileLock(folder / SCRATCH_OWNER)
        free = _acquired(lock)
        lock.release()
    except OSError:  # it is somebody else's, or gone by now
        return False
    return free


def _removed(path: Path) -> None:
    """Remove the file of a lock while it is held: who has opened it finds it gone, and makes a new one."""
    with suppress(OSError):  # Windows removes no file that is locked
        path.unlink()


def _acquired(lock: FileLock) -> bool:
    """Try to get a lock; return whether that worked."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _may_be_held_elsewhere(path: Path) -> bool:
    """Return whether the file names another machine, or is damaged; a process that died left an empty one."""
    try:
        written = path.stat().st_size > 0
    except OSError:
        return False
    owner = _owner(path)
    return written and (owner is None or owner.get("host") != socket.gethostname())


def _beat(path: Path, seconds: float, ended: threading.Event) -> None:
    """Touch the file again and again."""
    while not ended.wait(seconds):
        with suppress(OSError):
            os.utime(path)


def _can_be_touched(path: Path) -> bool:
    """Return whether the file system keeps a file's time; some object stores do not."""
    try:
        os.utime(path, (1, 1))
        return path.stat().st_mtime == 1
    except OSError:  # it is somebody else's
        return False


def _beat_seconds(path: Path) -> float | None:
    """Return the time between two heartbeats of the holder, None if it has stated none."""
    seconds = (_owner(path) or {}).get("beat_seconds")
    return seconds if isinstance(seconds, int | float) else None


def _stale(path: Path, work: str) -> bool:
    """Return whether a holder on another machine touches its file no more; waits until that is sure.

    It counts that the file's time changes, not which it is: machines need not agree on the time.
    """
    beat, before = _beat_seconds(path), _touched(path)
    if beat is None:
        return False
    began, silence = time.monotonic(), MISSED_BEATS * beat
    log.info("%s is of another machine; watching for %.0f s whether it is still at %s", path, silence, work)
    while time.monotonic() < began + silence:
        time.sleep(min(beat, 1.0))
        if (now := _touched(path)) != before:
            return now is None
    log.warning("nobody has touched %s for %.0f s; its process was killed, this one goes on", path, silence)
    return True


def _touched(path: Path) -> int | None:
    """Return the time at which a file was last touched, None if it is gone."""
    try:
        with path.open("rb") as file:  # Network file systems ask the server again on opening.
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _refusal(path: Path, work: str, *, alive: bool) -> str:
    """Return the message for when another process does the work, or may do so where it is not known."""
    owner = _owner(path) or {}
    began = owner.get("began")
    since = f" (it began at {datetime.fromtimestamp(began):%Y-%m-%d %H:%M})" if began else ""
    remedy = "wait for it, or end it" if alive else f"wait for it, or delete {path} if it has ended"
    return (
        f"expected {work} at a time, found process {owner.get('pid', 'unknown')} on "
        f"{owner.get('host', 'an unknown machine')} at it{', alive' if alive else ''}; {remedy}{since}"
    )


def _owner(path: Path) -> dict[str, Any] | None:
    """Return what the holder has written into the file, None if it cannot be read."""
    try:
        owner = parse_json(read_text(path))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None
