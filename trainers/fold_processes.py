"""The processes of folds that are trained side by side: begun where a device is free, watched, and ended."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from autospine.core.errors import TrainingError
from autospine.dataset.splits import Fold
from autospine.system.workers import SPAWN
from trainers.fold_messages import FoldMessage, FoldMessages
from trainers.progress_report import ProgressReport
from trainers.schedule import NoTimeLeftError

EXIT_SECONDS = 30.0
"""Time that the process of a fold has to end once the fold is done; threads of a tracker may hold it up."""

STOP_SECONDS = 1800.0
"""Time that the folds have to finish their steps and write checkpoints once they are told to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldJob:
    """A fold to train, and its part of the machine."""

    fold: Fold

    share: float
    """Share of the remaining time that the fold gets when it begins."""

    threads: int
    """Threads that its steps take."""


@dataclass(kw_only=True, slots=True)
class _Running:
    """A fold in training."""

    job: FoldJob
    place: torch.device
    process: SpawnProcess
    outcome: Connection
    """Yields the slowdown of its validation, None if it was not measured, or its error, once."""

    reports: Connection
    """Yields reports of its progress, and messages."""

    done: float | None = None
    """Value of `time.monotonic()` at which the outcome came."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldPipes:
    """The ends of pipes that the process of a fold has."""

    stop: Connection
    """Ends when the fold is to stop."""

    outcome: Connection
    """Takes the slowdown of its validation, None if it was not measured, or its error, once."""

    reports: Connection
    """Takes reports of its progress, and messages."""


StartFold = Callable[[FoldJob, torch.device, FoldPipes], SpawnProcess]
"""Starts the process of a fold on a device; raises NoTimeLeftError if the time limit is reached."""


@dataclass(slots=True)
class FoldProcesses:
    """The processes of the folds, one for each, as many at a time as there are places.

    A process is told to stop by the end of a pipe, which comes when this object is told to end and when its
    process is gone. Nothing waits for an answer: a process that has been killed holds nobody up.

    Args:
        jobs: Folds in the order in which they begin.
        places: Devices; one that occurs twice has two folds at a time.
        start: Starts the process of a fold.
        messages: Takes what the folds have to say.
        note: Takes the slowdown of each fold's validation that is done; None if it was not measured.
    """

    jobs: Sequence[FoldJob]
    places: Sequence[torch.device]
    start: StartFold
    messages: FoldMessages = field(default_factory=FoldMessages)
    note: Callable[[float | None], None] = lambda _: None
    late: list[Fold] = field(init=False, default_factory=list)
    """Folds for which no time was left."""

    reports: dict[str, ProgressReport] = field(init=False, default_factory=dict)
    """The newest report of each fold that has begun, by its name."""

    _waiting: deque[FoldJob] = field(init=False)
    _free: deque[torch.device] = field(init=False)
    _running: list[_Running] = field(init=False, default_factory=list)
    _told: Connection = field(init=False)
    _stop: Connection = field(init=False)

    def __post_init__(self) -> None:
        self._waiting, self._free = deque(self.jobs), deque(self.places)
        self._told, self._stop = SPAWN.Pipe(duplex=False)

    def wait(self, seconds: float) -> bool:
        """Begin what can begin, and wait until something happens, at most this long.

        Returns:
            Whether all folds are done.

        Raises:
            TrainingError: If a process has ended without a word.
            Exception: What a fold has raised.
        """
        while self._waiting and self._free:
            self._begin(self._waiting.popleft(), self._free.popleft())
        outcomes = [running.outcome for running in self._running if running.done is None]
        # A process that its own children outlive, those of a tracker perhaps, shows its end only to a look.
        wait([*outcomes, *(running.process.sentinel for running in self._running)], seconds)
        for running in tuple(self._running):
            try:
                over = self._is_over(running)
            finally:
                self._read_reports(running)  # after the outcome, before which all was sent
            if over:
                self._running.remove(running)
                self._free.append(running.place)
        return not (self._running or self._waiting)

    def end(self) -> None:
        """End the processes that are left; each finishes its step and writes a checkpoint first.

        A second interrupt kills them, as does a process that takes longer than `STOP_SECONDS`.
        """
        self._waiting.clear()
        self._stop.close()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for running in self._running:
                running.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for running in self._running:
                running.process.kill()
                running.process.join(EXIT_SECONDS)
                self._read_reports(running)
            self._running.clear()
            self._told.close()

    def _begin(self, job: FoldJob, place: torch.device) -> None:
        """Start the process of a fold, unless no time is left."""
        (outcome, sent), (reports, reported) = (SPAWN.Pipe(duplex=False) for _ in range(2))
        try:
            pipes = FoldPipes(stop=self._told, outcome=sent, reports=reported)
            process = self.start(job, place, pipes)
        except BrokenPipeError:  # killed before it had read what it is to do
            raise _killed(job.fold) from None
        except NoTimeLeftError:
            self._miss(job.fold)
            self._free.append(place)
            outcome.close()
            reports.close()
            return
        finally:
            sent.close()  # so that the pipes end with the process
            reported.close()
        name = job.fold.name
        self.reports[name] = ProgressReport(task=f"fold {name}", share=0.0, text="starting")
        self._running.append(
            _Running(job=job, place=place, process=process, outcome=outcome, reports=reports)
        )

    def _read_reports(self, running: _Running) -> None:
        with suppress(EOFError, OSError):  # the process has ended, perhaps within a report
            while running.reports.poll():
                name, sent = running.job.fold.name, running.reports.recv()
                if isinstance(sent, FoldMessage):
                    self.messages.take(name, sent)
                elif running.job.fold not in self.late:
                    self.reports[name] = sent

    def _is_over(self, running: _Running) -> bool:
        """Return whether the process of a fold has ended; raises what went wrong in it."""
        ended = running.process.exitcode is not None
        if running.done is None and running.outcome.poll():
            try:
                outcome = running.outcome.recv()
            except (EOFError, OSError):  # without a word
                running.process.join(EXIT_SECONDS)
                raise _killed(running.job.fold) from None
            running.done = time.monotonic()
            running.outcome.close()
            if isinstance(outcome, NoTimeLeftError):
                self._miss(running.job.fold)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self.note(outcome)
        elif running.done is None and ended:
            raise _killed(running.job.fold)
        elif running.done is not None and time.monotonic() > running.done + EXIT_SECONDS:
            running.process.kill()
        return ended and running.done is not None

    def _miss(self, fold: Fold) -> None:
        """Note that no time is left for a fold; the others go on."""
        self.late.append(fold)
        self.reports[fold.name] = ProgressReport(task=f"fold {fold.name}", share=0.0, text="no time is left")


def _killed(fold: Fold) -> TrainingError:
    return TrainingError(
        f"expected every fold's process to finish, found that of fold {fold.name} killed, probably for want "
        "of memory; run the same command again with fewer folds at once (--parallel 1): it resumes where it "
        "was"
    )
