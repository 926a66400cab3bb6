"""Iterators over batches that are made elsewhere: they count how long they wait, and can be stopped."""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

from autospine.data.patches import Batch

CHECK_SECONDS = 1.0
"""Time between two checks of a thread whether it should stop, or whether the other one lives."""

Item = TypeVar("Item")


class AwaitedBatches(ABC):
    """Iterator over batches that a thread or other processes make, which counts how long it waits."""

    def __init__(self) -> None:
        self._waited = 0.0

    @property
    def seconds_waited(self) -> float:
        """Time that the caller has spent waiting for batches so far."""
        return self._waited

    def __iter__(self) -> Iterator[Batch]:
        return self

    @abstractmethod
    def __next__(self) -> Batch:
        """Wait for the next batch."""

    @abstractmethod
    def close(self) -> None:
        """Stop whatever makes the batches; may be called more than once."""

    def _wait_for(self, take: Callable[[], Item]) -> Item:
        """Return what a function returns that waits, and count its time."""
        began = time.monotonic()
        try:
            return take()
        finally:
            self._waited += time.monotonic() - began


def put_unless_stopped(item: Item, made: "queue.Queue[Item]", stop: threading.Event) -> bool:
    """Put an item into a queue as soon as there is room; return False if the thread should stop instead."""
    while not stop.is_set():
        try:
            made.put(item, timeout=CHECK_SECONDS)
        except queue.Full:
            continue
        return True
    return False
