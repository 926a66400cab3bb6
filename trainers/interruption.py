"""Postponed signals that ask a process to end, so that training can write a checkpoint first."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from autospine.system.signals import SIGNALS


@dataclass(slots=True)
class Interruption:
    """Request to stop that a signal has made, if one has come."""

    signal: int | None = None
    """Number of the postponed signal; None if none has come."""

    @property
    def wanted(self) -> bool:
        """Whether training should stop as soon as its state can be kept."""
        return self.signal is not None


@contextmanager
def postponed() -> Iterator[Interruption]:
    """Postpone signals until the block has ended, then pass them to their previous handlers.

    A second signal takes effect at once, but not in a worker process: there the same request may come from
    outside and from the parent, who can kill the worker. Signals that are ignored stay ignored. Outside the
    main thread, which alone receives signals, nothing is postponed.

    Yields:
        The request to stop, which the block has to check.

    Raises:
        KeyboardInterrupt: If a signal came during the block and its previous handler did nothing.
    """
    request = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {
        number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
    }

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        """Remember the first signal, and let the second one stop the program at once."""
        if not request.wanted:
            request.signal = number
        elif multiprocessing.parent_process() is None:  # the second signal
            restore()
            signal.raise_signal(number)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
    if request.signal is not None:
        signal.raise_signal(request.signal)
        raise KeyboardInterrupt
