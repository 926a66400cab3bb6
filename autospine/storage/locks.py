"""Work on a folder that one process does at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autospine.system.log import get_logger

log = get_logger(__name__)


@contextmanager
def alone(lock: Path, work: str) -> Iterator[None]:
    """Keep other processes from the same work; where one is at it already, say so and wait until it is done.

    Args:
        lock: a file that the operating system locks for as long as the block, or the process, lasts. Its
            folder is made.
        work: what another process does, as in "scores the folds of ...".
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.info("another process %s; waiting for it", work)
        held.acquire()
    try:
        yield
    finally:
        held.release()
