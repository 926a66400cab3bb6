"""One training of a fold at a time."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autospine.errors import TrainingError

LOCK = "training.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training the fold in this folder, on this machine or another.

    The operating system holds the lock, so that it is free as soon as its process has ended, however that
    ended. What the file says is for people, and for other machines: network file systems do not always pass
    locks on. There a lock counts for as long as its file is there, and two machines that begin within the
    same moment may both get it.

    Raises:
        TrainingError: if another process holds the lock, or one of another machine may do so.
    """
    path = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    if _may_be_held_elsewhere(path):
        raise TrainingError(_held(path))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(_held(path)) from None
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": time.time()}
        with suppress(PermissionError):  # Windows lets nobody write to a file that is locked.
            path.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
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


def _held(path: Path) -> str:
    owner = _owner(path) or {}
    began = owner.get("began")
    since = f" (it began at {datetime.fromtimestamp(began):%Y-%m-%d %H:%M})" if began else ""
    return (
        f"expected one training of {path.parent} at a time, found process {owner.get('pid', 'unknown')} on "
        f"{owner.get('host', 'an unknown machine')} at it; wait for it, or delete {path} if it has "
        f"ended{since}"
    )


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None
