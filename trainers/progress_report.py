"""Progress of a fold that is trained in a process of its own, reported to the process that shows it."""

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

TRAINING = "training"
"""Last word of the description of a fold's training; other tasks of its process have others."""

REPORT_SECONDS = 1.0
"""Time between two reports."""


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
    """Sends the newest report through a pipe, once in `REPORT_SECONDS` and only if there is a new one.

    It sends from a thread of its own: training never waits for a parent that does not read.

    Args:
        pipe: End of the pipe to send through.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._newest: ProgressReport | None = None
        threading.Thread(target=self._send, daemon=True).start()

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
        sent, pause = None, threading.Event()
        with suppress(OSError):  # the parent is gone
            while not pause.wait(REPORT_SECONDS):
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
        """ProgressReport a text of one or more lines."""
        self._report = replace(self._report, text=text)
        self._reporter.put(self._report)
