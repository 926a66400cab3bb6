"""Ctrl-C and SIGTERM that wait until training has kept what it has."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Interruption:
    """What was asked for so far."""

    signal: int | None = None
    """The number of the signal that waits."""

    @property
    def wanted(self) -> bool:
        """Whether the work should stop at the next good place."""
        return self.signal is not None


@contextmanager
def postponed() -> Iterator[Interruption]:
    """Let the block find a good place to stop; then the signal goes to whom it would have gone at once.

    A second signal does not wait. Signals that are ignored stay ignored, and outside of the main thread,
    which gets no signals, nothing is postponed.

    Raises:
        KeyboardInterrupt: after the block, if a signal came and its handler did nothing.
    """
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {
        number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
    }

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        if asked.wanted:
            restore()
            signal.raise_signal(number)
        asked.signal = number

    for number in handlers:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()
    if asked.signal is not None:
        signal.raise_signal(asked.signal)
        raise KeyboardInterrupt
