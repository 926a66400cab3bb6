"""Logging and progress: bars in a terminal, plain lines elsewhere.

Names of cases, labels and sites come from other people's files. Whatever is shown passes through `printable`
here: consoles and log handlers do so by themselves, so that no caller has to remember.

The library logs through the standard `logging` module and never prints. `setup` is called once, by the
command line; without it nothing shows progress.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

T = TypeVar("T")

WIDTH_OF_BARS = 70
"""Columns of a terminal from which a bar and the time so far have room beside the step and the time left."""

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
"""Characters that move the cursor, colour text, reverse its order or break lines, but for `\\n` and tabs."""

_LINE = re.compile(r"\n(?=\S)")


def printable(text: str) -> str:
    """Replace characters that would steer the terminal, and escape those that cannot be encoded."""
    plain = _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)
    return plain.encode(errors="backslashreplace").decode()


def message(text: str) -> str:
    """Return a message as it is shown: printable, and indented after its first line.

    A name with a line break could pass for a message of AutoSpine otherwise.
    """
    return _LINE.sub("\n  ", printable(text))


class PlainConsole(Console):
    """A console that shows texts, tables and progress bars without what would steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; its own control sequences stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _PlainFormatter(logging.Formatter):
    """Formatter of messages that may hold names of other people's files; tracebacks are ours."""

    def format(self, record: logging.LogRecord) -> str:
        return message(super().format(record))


CONSOLE = PlainConsole(stderr=True, highlight=False, quiet=True)
"""Console for progress and messages, quiet until `setup`; results go to standard output."""

PACKAGES = ("autospine", "planners", "trainers")

QUIET_SECONDS = 2.0
"""Tasks that end sooner show no progress."""

LINE_SECONDS = 10.0
"""Time between two progress lines without a terminal."""

RECENT_SECONDS = 60.0
"""Time whose steps the remaining time is estimated from: earlier ones say little, if the machine was busy
then or is now."""

RECENT_STEPS = 8
"""Least steps that the remaining time is estimated from, however long they took: that many processes may end
one each at nearly the same time."""

_current: Progress | None = None

_handed_on: "Callable[[str, float, float], Meter] | None" = None
"""Makes the progress displays of a silent process."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose `__name__` is `name`."""
    return logging.getLogger(name)


def setup(debug: bool = False) -> None:
    """Send log records and progress to standard error: coloured in a terminal, plain lines elsewhere."""
    CONSOLE.quiet = False
    handler: logging.Handler
    if CONSOLE.is_terminal:
        handler = RichHandler(
            console=CONSOLE, show_time=False, show_level=False, show_path=debug, markup=False
        )
        handler.setFormatter(_PlainFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_PlainFormatter("%(message)s" if not debug else "%(name)s: %(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
        logger.propagate = False


@contextmanager
def shown() -> Iterator[None]:
    """Show progress and messages within the block, as the command line does; afterwards all is as before."""
    loggers = [logging.getLogger(package) for package in PACKAGES]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    quiet = CONSOLE.quiet
    setup()
    try:
        yield
    finally:
        CONSOLE.quiet = quiet
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def silence(meter: "Callable[[str, float, float], Meter] | None" = None) -> None:
    """Show no progress and no messages below warnings, for processes whose parent shows them.

    Args:
        meter: Makes the progress display of a task from its description, its total and what was done before;
            None to let nobody know.
    """
    global _handed_on
    CONSOLE.quiet, _handed_on = True, meter
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.WARNING)


@runtime_checkable
class Meter(Protocol):
    """A progress display, as `progress` yields it."""

    def advance(self, amount: int | float = 1) -> None:
        """Count this amount of the total as done."""

    def update(self, text: str) -> None:
        """Show a text under a bar, or at the end of a plain line; several lines of text stand under it."""


@contextmanager
def progress(
    description: str,
    total: int | float | None,
    *,
    done: float = 0.0,
    percent: bool = False,
    ends: float | None = None,
) -> Iterator[Meter]:
    """Show how much of a task is done and how long the rest will take; nothing if the total is 0.

    Args:
        description: The task in a few words.
        total: Number of steps, None if it is unknown.
        done: Number of steps that were done before; the remaining time is estimated without them.
        percent: Whether to show a percentage instead of the number of steps.
        ends: Value of `time.monotonic()` at which the task ends, however much is done; None if that depends
            on the work, so that the remaining time is estimated.
    """
    if CONSOLE.quiet and _handed_on is not None:
        yield _handed_on(description, total or 0, done)
        return
    kind = _Unseen if CONSOLE.quiet else _Bar if CONSOLE.is_terminal else _Lines
    meter: _Unseen | _Bar | _Lines = kind(description, total, done=done, percent=percent, ends=ends)
    try:
        yield meter
    finally:
        meter.close()


def track(items: Iterable[T], description: str, total: int | float | None = None) -> Iterator[T]:
    """Iterate over items and show progress; `total` is their number where they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as meter:
        for item in items:
            yield item
            meter.advance()


def _count(done: float, total: float | None, *, percent: bool) -> str:
    """Write how much is done: `7/25`, `28 %`, or `7` of an unknown number."""
    if percent and total:
        return f"{100 * done / total:.0f} %"
    return f"{round(done, 1):g}" + (f"/{total:g}" if total else "")


class _StepColumn(ProgressColumn):
    """Column beside a bar that shows how much is done."""

    def render(self, task: Task) -> Text:
        count = _count(task.completed, task.total, percent=task.fields["percent"])
        return Text(count, style="progress.download")


class _LeftColumn(ProgressColumn):
    """Column beside a bar with the remaining time: that until the end where it is known, else an estimate."""

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        seconds = task.fields["pace"].seconds_left() if ends is None else _left(ends)
        shown = "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
        return Text(shown, style="progress.remaining")


def _columns() -> list[ProgressColumn]:
    """Return the columns that fit the terminal: rather the step and the time left than a bar."""
    whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    wide = CONSOLE.width >= WIDTH_OF_BARS
    name = TextColumn("{task.description}", markup=False, table_column=whole if wide else cut)
    left = [TextColumn("left", table_column=whole), _LeftColumn(table_column=whole)]
    if not wide:
        return [name, _StepColumn(table_column=whole), *left]
    bar, elapsed = BarColumn(bar_width=30), TimeElapsedColumn(table_column=whole)
    return [name, bar, _StepColumn(table_column=whole), elapsed, *left]


def _left(ends: float) -> int:
    """Return the whole seconds until a value of `time.monotonic()`."""
    return max(0, round(ends - time.monotonic()))


class _Pace:
    """The pace of a task, from which its remaining time is estimated.

    Args:
        total: Number of steps, None if it is unknown.
        done: Number of steps that were done before, which tell nothing of the pace.
    """

    def __init__(self, total: float | None, done: float) -> None:
        self._total, self._done = total, done
        self._samples = deque([(time.monotonic(), done)])

    def advance(self, amount: float) -> None:
        """Count this amount as done now, and forget what is too long ago to count."""
        now = time.monotonic()
        self._done += amount
        samples = self._samples
        if amount and now - samples[-1][0] >= 1:  # many steps a second are one sample
            samples.append((now, self._done))
        while len(samples) > RECENT_STEPS + 1 and samples[1][0] <= now - RECENT_SECONDS:
            samples.popleft()

    def seconds_left(self) -> float | None:
        """Return the seconds that the rest takes at the recent pace, None while nothing tells."""
        since, before = self._samples[0]
        if not self._total or self._done <= before:
            return None
        seconds_per_step = (time.monotonic() - since) / (self._done - before)
        return seconds_per_step * max(0.0, self._total - self._done)


class _Display(Progress):
    """Progress bars with their texts underneath."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            for line in task.fields["text"].splitlines():
                yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


class _Unseen:
    """Progress of a program that has not asked to see any."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def advance(self, amount: int | float = 1) -> None:
        """Count nothing."""

    def update(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Close nothing."""


class _Bar:
    """A rich progress bar; nested ones share one display."""

    def __init__(
        self,
        description: str,
        total: int | float | None,
        *,
        done: float,
        percent: bool,
        ends: float | None = None,
    ) -> None:
        global _current
        self._owner = _current is None
        if _current is None:
            _current = _Display(*_columns(), console=CONSOLE, transient=True, refresh_per_second=4)
            _current.start()
        self._progress = _current
        self._pace = _Pace(total, done)
        self._task = self._progress.add_task(
            description,
            total=total,
            visible=total != 0,
            text="",
            percent=percent,
            ends=ends,
            pace=self._pace,
        )
        self._progress.update(self._task, completed=done)

    def advance(self, amount: int | float = 1) -> None:
        self._pace.advance(amount)
        self._progress.advance(self._task, amount)

    def update(self, text: str) -> None:
        self._progress.update(self._task, text=text)

    def close(self) -> None:
        """Remove the bar from the screen, and the display with the outermost bar."""
        global _current
        self._progress.remove_task(self._task)
        if self._owner:
            self._progress.stop()
            _current = None


class _Lines:
    """A progress line every few seconds, for log files and pipes."""

    def __init__(
        self,
        description: str,
        total: int | float | None,
        *,
        done: float,
        percent: bool,
        ends: float | None = None,
    ) -> None:
        self._description, self._total, self._percent, self._ends = description, total, percent, ends
        self._done, self._text = done, ""
        self._start = self._last = time.monotonic()
        self._printed, self._last_count = False, 0.0
        self._pace = _Pace(total, done)

    def advance(self, amount: int | float = 1) -> None:
        """Count this amount as done, and print a line if the last one is some seconds old."""
        self._done += amount
        self._pace.advance(amount)
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or (not self._printed and now - self._start >= QUIET_SECONDS):
            self._last, self._printed = now, True
            self._line(now)

    def update(self, text: str) -> None:
        self._text = text

    def close(self) -> None:
        """Print a last line, if any was printed before."""
        now = time.monotonic()
        if self._printed and self._last_count != self._done:
            self._line(now)

    def _line(self, now: float) -> None:
        elapsed, self._last_count = now - self._start, self._done
        count = _count(self._done, self._total, percent=self._percent)
        parts = [f"{self._description}: {count}", f"{elapsed:.0f} s"]
        if self._ends is not None:
            parts.append(f"{_left(self._ends)} s left")
        elif self._total and self._done < self._total and (left := self._pace.seconds_left()) is not None:
            parts.append(f"{left:.0f} s left")
        between = "\n" if "\n" in self._text else ", "
        line = ", ".join(parts) + (between + self._text if self._text else "")
        CONSOLE.print(message(line), soft_wrap=True, markup=False)
