"""Output and warnings of libraries are kept off the screen where AutoSpine says the same in its own words."""

import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from autospine.system.log import get_logger

logger = get_logger(__name__)

_STANDARD_ERROR = 2

_CHATTER = re.compile(rb"\*\* ?(?:ERROR|WARNING)[^\n]*(?:\n|$)")
"""Lines of the NIfTI library that SimpleITK writes with, such as `** ERROR: NWAD: wrote only 0 of 4`."""


class _Shared:
    """A state of the whole process that several threads may want: the first begins it, and the last ends it.

    Args:
        make: Makes the context that is entered and left.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._entered = make()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have the state for as long as the context lasts."""
        with self._lock:
            if self._users == 0:
                self._entered = self._make()
                self._entered.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._entered.__exit__(None, None, None)


@contextmanager
def _ignored_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _held_back() -> Iterator[None]:
    """Lead standard error into a file, and show of it at the end what is not chatter."""
    with suppress(Exception):
        sys.stderr.flush()
    try:
        screen, held = os.dup(_STANDARD_ERROR), _unnamed_file()
    except OSError:  # there is no standard error, or no room for a file
        yield
        return
    try:
        os.dup2(held, _STANDARD_ERROR)
        yield
    finally:
        os.dup2(screen, _STANDARD_ERROR)
        said = _content(held)
        for text in _CHATTER.findall(said):
            logger.debug("a library says: %s", text.decode(errors="replace").strip())
        with suppress(OSError):
            os.write(screen, _CHATTER.sub(b"", said))
        os.close(screen)
        os.close(held)


def _unnamed_file() -> int:
    """Return a file that is gone once it is closed: in memory where the system can, as a disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("standard error")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _content(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    parts = []
    while part := os.read(file, 1 << 16):
        parts.append(part)
    return b"".join(parts)


_WARNINGS, _CHATTERING = _Shared(_ignored_warnings), _Shared(_held_back)


def without_warnings() -> AbstractContextManager[None]:
    """Keep the remarks of libraries on oddities of a header, which many scanners have, off the screen.

    Warnings are those of the whole process: they come back when the last of several threads is done.
    """
    return _WARNINGS.used()


def without_chatter() -> AbstractContextManager[None]:
    """Keep what the NIfTI library prints off the screen; everything else is shown a moment later.

    Standard error is that of the whole process, as warnings are.
    """
    return _CHATTERING.used()
