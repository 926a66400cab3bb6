"""Reading of images in a thread of its own, while the networks run."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from autospine.dataset.raw import Case
from autospine.io.images import Volume
from autospine.system.hardware import free_memory

ROOM_FOR_NEXT = 2.0
"""The next image is read in advance if this many times the present case's memory is free."""


class ReadAhead:
    """The images of several cases in order, the next one read in advance where there is room for two.

    Args:
        cases: Cases in the order in which they are taken.
        read: Reads the image of a case.
    """

    def __init__(self, cases: Sequence[Case], read: Callable[[Case], Volume]) -> None:
        self._waiting, self._read = deque(cases), read
        self._pool = ThreadPoolExecutor(1)
        self._next: Future[Volume] | None = None

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self) -> Volume:
        """Return the image of the next case, or raise the error that reading it has raised."""
        future, self._next = self._next or self._submit(), None
        return future.result()

    def read_next(self, needed: int) -> None:
        """Begin to read the next image, unless memory is short.

        Args:
            needed: Bytes that the present case takes.
        """
        if self._waiting and self._next is None and free_memory() > ROOM_FOR_NEXT * needed:
            self._next = self._submit()

    def _submit(self) -> "Future[Volume]":
        return self._pool.submit(self._read, self._waiting.popleft())
