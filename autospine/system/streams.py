"""Standard streams that drop what cannot be shown, so that nothing but the display stops."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

_UNSHOWN = (OSError, ValueError, AttributeError)
"""Errors of a stream without a reader, terminal or room, of a closed one, and of one that lacks a method."""


class Shown(io.TextIOBase):
    """A stream that drops what cannot be shown, so that nothing but the display stops.

    The reader of a pipe may have left, a terminal may be lost and the disk of a log full. Characters that
    the stream cannot encode are escaped.

    Args:
        stream: Stream to write to, perhaps somebody's own that can do no more than write; None, as Python has
            it where a program was started without.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Treatment of characters that cannot be encoded, by its name in Python."""
        return getattr(self._stream, "errors", None) or "strict"

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        if not isinstance(text, str):
            raise TypeError(f"expected a text, found {type(text).__name__}")
        if self._stream is not None:
            with suppress(*_UNSHOWN):
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Show what was written if that is possible."""
        if self._stream is not None:
            with suppress(*_UNSHOWN):
                self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        with suppress(*_UNSHOWN):
            return self._stream is not None and bool(self._stream.isatty())
        return False

    def writable(self) -> bool:
        """Return whether texts can be written, which they always can."""
        return True

    def fileno(self) -> int:
        """Return the number of the stream's file."""
        if self._stream is None:
            raise OSError("no stream")
        return int(self._stream.fileno())

    def let_go(self) -> None:
        """Lead what was not shown nowhere, because Python would fail to show it when it ends."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except _UNSHOWN:
            with suppress(*_UNSHOWN):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def showing() -> Iterator[None]:
    """Let standard output and error drop what cannot be shown, within the block and at the program's end."""
    _open_missing_files()
    out, err = Shown(sys.stdout), Shown(sys.stderr)
    try:
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            yield
    finally:
        out.let_go()
        err.let_go()


def _open_missing_files() -> None:
    """Give a program that was started without standard streams files that lead nowhere.

    The first files that it opens would get their numbers otherwise, and what libraries print would be written
    into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the smallest free number
