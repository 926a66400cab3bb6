"""Messages, results and progress on streams that fail."""

import errno
import io
import sys

import pytest
from rich.console import Console

from autospine.system import log
from autospine.system.streams import showing


class Failing(io.StringIO):
    """A stream that fails in the end, as one does whose terminal, reader or disk is gone."""

    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        raise self.error


class Bare:
    """A stream of somebody's own that can do no more than write."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN = [
    None,
    Failing(OSError(errno.EIO, "terminal lost")),
    Failing(BrokenPipeError(errno.EPIPE, "reader gone")),
    Failing(OSError(errno.ENOSPC, "disk full")),
    Failing(OSError(errno.EBADF, "closed")),
    Failing(ConnectionResetError(errno.ECONNRESET, "reader gone")),
    closed(),
    Bare(),
    object(),
]


@pytest.mark.parametrize("stream", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("terminal", [True, False])
def test_what_cannot_be_shown_is_dropped(monkeypatch, loggers, clock, stream, terminal):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console(stderr=True, highlight=False, force_terminal=terminal)
    monkeypatch.setattr(log, "CONSOLE", console)
    done = 0
    with showing():
        log.setup()
        loggers[0].warning("a message")
        print("a result")  # noqa: T201
        with log.progress("training", 2) as meter:
            for _ in range(2):
                clock.now += 11
                meter.advance()
                meter.update("loss 0.5")
                done += 1
        assert not sys.stderr.isatty()
    assert done == 2
    assert sys.stderr is stream


def test_what_can_be_shown_is_shown(monkeypatch):
    stream = Bare()
    monkeypatch.setattr(sys, "stdout", stream)
    with showing():
        print("a result", flush=True)  # noqa: T201
    assert stream.written == "a result\n"


def test_characters_that_a_stream_has_not_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with showing():
        print("γ 0.5 \N{MULTIPLICATION SIGN}")  # noqa: T201
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u03b3 0.5 \\xd7\n"
