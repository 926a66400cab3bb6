"""Signals that ask this process to end: those of users, terminals, systems and schedulers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""Signals that are taken as a request to end, where the system has them.

Schedulers announce the end of a job with SIGUSR1 or SIGUSR2 (Slurm's `--signal`), that of its CPU time with
SIGXCPU, and a terminal that is closed sends SIGHUP. Each of them would kill the process at once.
"""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code that shells give to a process ended by Ctrl-C."""


@contextmanager
def heeding_signals() -> Iterator[list[int]]:
    """Let every signal of `SIGNALS` do what Ctrl-C does: temporary files are removed, workers ended.

    Signals that are ignored, as SIGHUP is by `nohup`, or that have a handler already, stay as they are.

    Yields:
        The numbers of the signals that have come, except for Ctrl-C; signals to come are added.
    """
    come: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        come.append(number)
        signal.default_int_handler(number, frame)

    main = threading.current_thread() is threading.main_thread()
    heeded = [number for number in SIGNALS if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield come
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def own_handlers() -> Iterator[None]:
    """Undo what an import does to signals: where a library takes Ctrl-C for itself, commands end unsaid."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
