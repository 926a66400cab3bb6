"""Progress and messages of a fold trained in a process of its own, sent to the process that shows them."""

import logging
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from autospine.system.log import PACKAGES
from trainers.fold_messages import FoldMessage, MessageHandler

TRAINING = "training"
"""Last word of the description of a fold's training; other tasks of its process have others."""

REPORT_SECONDS = 1.0
"""Time between two reports."""

CLOSE_SECONDS = 10.0
"""Time that the last messages have to be sent; a parent that does not read is not waited for longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressReport:
    """How far a fold has come with one of its tasks."""

    task: str
    """Description of the task, such as `fold 0, training`."""

    share: float
    """Share of the task that is done, in [0, 1]."""

    text: str
    """What the task says of itself in one or more lines."""


class Reporter:
    """Sends messages and the newest report through a pipe, once in `REPORT_SECONDS` if there are new ones.

    It sends from a thread of its own: training never waits for a parent that does not read.

    Args:
        pipe: End of the pipe to send through.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._newest: ProgressReport | None = None
        self._messages: deque[FoldMessage] = deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def take_messages(self, level: int) -> None:
        """Let the log records of this process go through the pipe, from this level on."""
        handler = MessageHandler(self._messages.append)
        for package in PACKAGES:
            logger = logging.getLogger(package)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(level)

    def close(self) -> None:
        """Send what is left."""
        self._closed.set()
        self._thread.join(CLOSE_SECONDS)

    def meter(self, task: str, total: float, done: float) -> "ReportingMeter":
        """Return a progress display that reports instead of showing.

        Args:
            task: Description of the task.
            total: Number of its steps.
            done: Number of steps that were done before.
        """
        return ReportingMeter(self, ProgressReport(task=task, share=0.0, text=""), total, done)

    def put(self, report: ProgressReport) -> None:
        """Take a report; it replaces the one before."""
        self._newest = report

    def _send(self) -> None:
        sent, closed = None, False
        with suppress(OSError):  # the parent is gone
            while not closed:
                closed = self._closed.wait(REPORT_SECONDS)
                while self._messages:
                    self._pipe.send(self._messages.popleft())
                newest = self._newest
                if newest is not sent:
                    self._pipe.send(newest)
                    sent = newest


class ReportingMeter:
    """Progress display of a silent process.

    Args:
        reporter: Takes its reports.
        report: First report.
        total: Number of steps of the task.
        done: Number of steps that were done before.
    """

    def __init__(self, reporter: Reporter, report: ProgressReport, total: float, done: float) -> None:
        self._reporter, self._report, self._total, self._done = reporter, report, total, done

    def advance(self, amount: int | float = 1) -> None:
        """Count this amount of the total as done."""
        self._done += amount
        share = min(1.0, self._done / self._total) if self._total else 0.0
        self._report = replace(self._report, share=share)
        self._reporter.put(self._report)

    def update(self, text: str) -> None:
        """Report a text of one or more lines."""
        self._report = replace(self._report, text=text)
        self._reporter.put(self._report)
