"""Worker processes that end with the process that started them."""

import copy
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
"""Starts fresh processes. Forking one that runs threads, as torch and Blosc2 do, can deadlock."""


class WorkerPool(ProcessPoolExecutor):
    """Fresh processes, each of which ends when this process is gone.

    Where the block that uses it is left early, by an error or an interrupt, jobs that have not begun are
    dropped; those that have begun are waited for, so that nobody writes afterwards.

    Args:
        workers: Number of processes.
        set_up: Called in each process before it takes work; a function of a module, as it is pickled.
    """

    def __init__(self, workers: int, set_up: Callable[[], object] | None = None) -> None:
        super().__init__(workers, mp_context=SPAWN, initializer=_begin, initargs=(set_up,))

    def __exit__(self, *_: object) -> None:
        """Drop the jobs that have not begun, and wait for the others."""
        self.shutdown(wait=True, cancel_futures=True)


def parent_lives() -> bool:
    """Return whether the process that started this one is there; False in one that nobody started so."""
    parent = multiprocessing.parent_process()
    return parent is not None and parent.is_alive()


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which reaches the whole process group, in a worker that its parent ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def portable(error: BaseException) -> Exception:
    """Return an error that can be sent to another process, with its traceback as a note.

    Traceback objects cannot be sent. An error that cannot be sent either, or that would end the other
    process, is replaced by a RuntimeError with this text.
    """
    text = "".join(traceback.format_exception(error))
    try:
        pickle.dumps(error)
        copy.copy(error)  # fails if the receiving process could not rebuild the error
    except Exception:
        return RuntimeError(text)
    if not isinstance(error, Exception):
        return RuntimeError(text)
    error.add_note(text)
    return error


def was_killed(future: "Future[Any]") -> bool:
    """Return whether a finished job was lost because a process of its pool was killed.

    The system kills a process that takes too much memory. The pool is unusable then: every job that was not
    finished is lost.
    """
    return isinstance(future.exception(), BrokenExecutor)


@contextmanager
def reporting_killed(error: Exception) -> Iterator[None]:
    """Raise `error` instead if a worker process was killed while its results were awaited.

    Args:
        error: Says which work it was and how it can be done in less memory.
    """
    try:
        yield
    except BrokenExecutor:
        raise error from None


def _begin(set_up: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if set_up is not None:
        set_up()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, killed perhaps.

    Nothing else would end it: it waits for work from a queue that it could write to itself, so that the queue
    has no end.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
