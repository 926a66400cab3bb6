"""One training of a fold at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from autospine.errors import TrainingError

LOCK = "training.lock"

SAME_START = 2.0
"""Seconds by which two readings of when a process began may differ: the clock is set now and then."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training the fold in this folder, on this machine or another.

    The lock of a process that has ended is taken over.

    Raises:
        TrainingError: if another process holds the lock.
    """
    path = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "began": _began(os.getpid())}, file)
    except FileExistsError:
        raise TrainingError(_held(path)) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the lock of a process of this machine that has ended."""
    owner = _owner(path)
    if owner is None or owner.get("host") != socket.gethostname():
        return
    began = _began(int(owner["pid"]))
    if began is None or abs(began - float(owner["began"])) > SAME_START:
        path.unlink(missing_ok=True)


def _held(path: Path) -> str:
    owner = _owner(path) or {}
    return (
        f"expected one training of {path.parent} at a time, found process {owner.get('pid', 'unknown')} on "
        f"{owner.get('host', 'an unknown machine')} at it; wait for it, or delete {path} if it has ended"
    )


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _began(pid: int) -> float | None:
    """When a process of this machine began, None if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
