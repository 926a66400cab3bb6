"""One training of a fold at a time."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autospine.core.errors import TrainingError
from autospine.system.log import get_logger

logger = get_logger(__name__)

LOCK = "training.lock"

BEAT_SECONDS = 15.0
"""Time between two signs of life of who holds a lock."""

SILENT_BEATS = 12
"""A lock of another machine that shows no sign of life for so many times as long was left behind."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training the fold in this folder, on this machine or another.

    The operating system holds the lock, so that it is free as soon as its process has ended, however that
    ended. What the file says is for people, and for other machines: network file systems do not always pass
    locks on. There a lock counts for as long as its holder shows signs of life, which are waited for where
    the file names another machine: a container or a job that was killed comes back under another name. Two
    machines that begin within the same moment may both get it, and one that sleeps for minutes may lose it.

    Raises:
        TrainingError: if another process holds the lock, or one of another machine may do so.
    """
    path = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    if _may_be_held_elsewhere(path) and not _left_behind(path):
        raise TrainingError(_held(path, lives=_beat_seconds(path) is not None))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(_held(path, lives=True)) from None
    ended = threading.Event()
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": time.time()}
        with suppress(PermissionError):  # Windows lets nobody write to a file that is locked.
            beats = {"beat_seconds": BEAT_SECONDS} if _can_be_touched(path) else {}
            path.write_text(json.dumps(owner | beats), encoding="utf-8")
        threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        # While it is held: whoever has opened the file by now finds that it is gone, and makes a new one.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _may_be_held_elsewhere(path: Path) -> bool:
    """Whether the file names another machine, or is damaged; an empty one was left by a process that died."""
    try:
        written = path.stat().st_size > 0
    except OSError:
        return False
    owner = _owner(path)
    return written and (owner is None or owner.get("host") != socket.gethostname())


def _beat(path: Path, ended: threading.Event) -> None:
    """Show signs of life: the file's time."""
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _can_be_touched(path: Path) -> bool:
    """Whether the file system keeps a file's time; some of object stores do not."""
    try:
        os.utime(path, (1, 1))
        return path.stat().st_mtime == 1
    except OSError:  # it is somebody else's
        return False


def _beat_seconds(path: Path) -> float | None:
    """How often the holder shows a sign of life, None where it has not said so."""
    seconds = (_owner(path) or {}).get("beat_seconds")
    return seconds if isinstance(seconds, int | float) else None


def _left_behind(path: Path) -> bool:
    """Whether a holder on another machine shows no sign of life, for as long as it takes to be sure.

    It counts that the file's time changes, not which it is: machines need not agree on the time.
    """
    beat, before = _beat_seconds(path), _touched(path)
    if beat is None:
        return False
    began, silent = time.monotonic(), SILENT_BEATS * beat
    logger.info("%s is of another machine; looking for %.0f s whether anybody trains there", path, silent)
    while time.monotonic() < began + silent:
        time.sleep(min(beat, 1.0))
        if (now := _touched(path)) != before:
            return now is None
    logger.warning(
        "nobody has touched %s for %.0f s; its training was killed, and goes on here", path, silent
    )
    return True


def _touched(path: Path) -> int | None:
    """When a file was last touched, None where it is gone."""
    try:
        with path.open("rb") as file:  # Network file systems ask the server again on opening.
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _held(path: Path, *, lives: bool) -> str:
    """What to say where another training is at it, or where that is all that is known."""
    owner = _owner(path) or {}
    began = owner.get("began")
    since = f" (it began at {datetime.fromtimestamp(began):%Y-%m-%d %H:%M})" if began else ""
    way = "wait for it, or end it" if lives else f"wait for it, or delete {path} if it has ended"
    return (
        f"expected one training of {path.parent} at a time, found process {owner.get('pid', 'unknown')} on "
        f"{owner.get('host', 'an unknown machine')} at it{', alive' if lives else ''}; {way}{since}"
    )


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None
