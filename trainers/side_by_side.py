"""Training of several folds at once, each in a process of its own that is watched through its log."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from statistics import mean
from types import FrameType
from typing import Any, TypeVar

import torch

from autospine.core.errors import TrainingError
from autospine.dataset.splits import Fold
from autospine.storage.trained_models import WEIGHTS
from autospine.system.allocation import reuse_freed_memory
from autospine.system.hardware import cores
from autospine.system.log import get_logger, progress, silence
from autospine.system.signals import SIGNALS
from autospine.system.workers import SPAWN, ignore_interrupts, portable
from trainers.checkpoints import Checkpoints
from trainers.fold_messages import FoldMessages
from trainers.fold_processes import FoldJob, FoldPipes, FoldProcesses
from trainers.fold_run import train_and_validate
from trainers.metrics_log import brief_summary, read_rows, rows_now
from trainers.progress_report import TRAINING, ProgressReport, Reporter
from trainers.settings import TrainingSettings
from trainers.time_budget import FairTimes, FoldTime
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 1.0
"""Time between two readings of the folds' logs, and between two checks that their processes live."""

VALIDATION_SHARE = 0.05
"""Share of a fold's progress that its validation makes."""

MOST_PERCENT = 99.0
"""Progress that is shown at most while folds are at work, whatever the time limit says."""


def train_side_by_side(
    task: TrainingRun, folds: Sequence[Fold], settings: TrainingSettings, deadline: float | None
) -> list[Fold]:
    """Train several folds at once, each in a process of its own.

    Small patches keep one core busy but not several, and a core that another program occupies delays
    one fold rather than all threads of one. No core is idle in the last round: five folds on two cores are a
    round of three and a round of two, and the time of a round is proportional to its number of folds.

    With several GPUs, each fold that is trained has one of them. The next fold goes to the GPU that is free
    first, and all rounds take equally long.

    Args:
        task: Training run that the folds belong to.
        folds: Folds to train, in order.
        settings: Settings of the training; `parallel` limits the number of processes.
        deadline: Value of `time.monotonic()` at which training has to end; None for no limit.

    Returns:
        The folds for which no time was left; they stay incomplete.

    Raises:
        TrainingError: If the process of a fold was killed, or if training a fold fails.
    """
    extending = settings.extend is not None
    say_where_folds_go_on(task, folds, extending=extending)
    places = settings.devices or (settings.device,)
    rounds = deal_rounds(folds, cores() if len(places) == 1 else settings.parallel, settings.parallel)
    jobs = [
        FoldJob(
            fold=fold,
            share=_round_share(rounds[index:], alike=len(places) > 1),
            threads=settings.threads or max(1, cores() // len(together)),
        )
        for index, together in enumerate(rounds)
        for fold in together
    ]
    used = [places[index % len(places)] for index in range(len(rounds[0]))]

    times = FairTimes(deadline, _fair_shares(rounds, alike=len(places) > 1))
    positions = {job.fold.name: index for index, job in enumerate(jobs)}

    def start(job: FoldJob, place: torch.device, pipes: FoldPipes) -> SpawnProcess:
        """Start the process of a fold on a device, with its share of the time from now on."""
        limit = times.of(positions[job.fold.name], job.share)
        process = SPAWN.Process(
            target=_train_in_process,
            name=f"fold {job.fold.name}",
            args=(pipes, task, job, replace(settings, device=place), limit, level),
        )
        process.start()
        return process

    level = get_logger("trainers").getEffectiveLevel()
    messages = FoldMessages(f"{task.plan.dataset}, {task.configuration.name}, ")
    processes = FoldProcesses(jobs, used, start, messages, times.note)
    try:
        watch_folds(
            task,
            folds,
            lambda: processes.wait(WATCH_SECONDS),
            processes.reports,
            messages,
            extending=extending,
            deadline=deadline,
        )
    finally:
        processes.end()
        messages.show(all_now=True)
    return processes.late


def deal_rounds(folds: Sequence[T], cores: int, most: int) -> list[Sequence[T]]:
    """Divide folds into rounds of nearly equal size that keep all cores busy.

    Args:
        folds: Folds in the order in which they are trained.
        cores: Number of cores (or of GPUs) to keep busy.
        most: Largest number of folds in a round.

    Returns:
        The rounds, larger ones first.
    """
    n = len(folds)
    rounds = max(n // cores, -(-n // most), 1)
    sizes = [n // rounds + (index < n % rounds) for index in range(rounds)]
    starts = [sum(sizes[:index]) for index in range(rounds)]
    return [folds[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _round_share(rounds: Sequence[Sequence[Fold]], *, alike: bool) -> float:
    """Return the share of the remaining time that the first of these rounds gets.

    Rounds take equally long (`alike`), or as long as is proportional to their number of folds.
    """
    return 1 / len(rounds) if alike else len(rounds[0]) / sum(len(folds) for folds in rounds)


def _fair_shares(rounds: Sequence[Sequence[Fold]], *, alike: bool) -> list[float]:
    """Return the share of the whole time that each fold of some rounds is to have, in their order."""
    n_folds = sum(len(folds) for folds in rounds)
    return [1 / len(rounds) if alike else len(folds) / n_folds for folds in rounds for _ in folds]


def _train_in_process(
    pipes: FoldPipes,
    task: TrainingRun,
    job: FoldJob,
    settings: TrainingSettings,
    limit: FoldTime | None,
    level: int,
) -> None:
    """Train a fold; a process begins here.

    Args:
        pipes: Connections to the parent.
        task: Training run that the fold belongs to.
        job: The fold.
        settings: Settings of the training.
        limit: The fold's time; None for no limit.
        level: Least level of the log records that the parent shows.
    """
    ignore_interrupts()
    reporter = Reporter(pipes.reports)
    silence(reporter.meter)
    reporter.take_messages(level)
    reuse_freed_memory()
    torch.set_num_threads(job.threads)
    outcome: BaseException | float | None = None
    try:
        try:
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, _stop_once)
            threading.Thread(target=_follow, args=(pipes.stop,), daemon=True).start()
            if settings.device.type == "cuda":
                torch.cuda.set_device(settings.device)
            outcome = train_and_validate(task, job.fold, settings, limit)
        finally:
            _stop_no_more()  # what a request to stop would interrupt from here on is not the training
    except KeyboardInterrupt:  # the parent knows, or is gone, or somebody has ended this process alone
        outcome = TrainingError(
            f"the process of fold {job.fold.name} was ended; run the same command again: it resumes where "
            "it was"
        )
    except BaseException as raised:  # other people's networks and losses may raise what they want
        outcome = portable(raised)
    reporter.close()
    with suppress(OSError):  # the parent is gone
        pipes.outcome.send(outcome)


def _follow(stop: Connection) -> None:
    """Stop this process if the parent asks for it, or if the parent has ended (perhaps killed)."""
    with suppress(OSError):
        stop.poll(None)
    # The same as a SIGTERM from outside: training finishes the step and writes a checkpoint.
    os.kill(os.getpid(), signal.SIGTERM)


def _stop_once(number: int, _: FrameType | None) -> None:
    """Stop; the same request may come from the parent, from outside and from a terminal that is closed."""
    _stop_no_more()
    raise KeyboardInterrupt


def _stop_no_more() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say_where_folds_go_on(task: TrainingRun, folds: Sequence[Fold], *, extending: bool) -> None:
    """Log for each interrupted fold where it resumes, because the processes of the folds are silent.

    A fold that is trained already is only validated, and is not mentioned unless it is extended.
    """
    for fold in folds:
        folder = task.fold_folder(fold)
        facts = Checkpoints(folder).facts()
        if facts is not None and (extending or not (folder / WEIGHTS).is_file()):
            logger.info("fold %s resumes after epoch %d, step %d", fold.name, facts["epochs"], facts["step"])


def watch_folds(
    task: TrainingRun,
    folds: Sequence[Fold],
    wait: Callable[[], bool],
    reports: Mapping[str, ProgressReport],
    messages: FoldMessages,
    *,
    extending: bool,
    deadline: float | None,
) -> None:
    """Show the folds' progress and messages, until all are done or one fails.

    Progress comes from their logs and from the reports of their processes.

    Args:
        task: Training run that the folds belong to.
        folds: Folds that are trained.
        wait: Waits a moment; returns whether all folds are done, and raises what went wrong in one.
        reports: Newest reports of the folds that have begun, which change during a wait.
        messages: What the folds have to say, which comes during a wait.
        extending: Whether folds are extended: then the rows of their finished training do not count.
        deadline: Value of `time.monotonic()` at which all folds are to be done; None for no limit.
    """
    before = {fold.name: read_rows(task.fold_folder(fold)) for fold in folds}
    finished = {name: len(rows) - len(rows_now(rows)) if extending else 0 for name, rows in before.items()}
    now = {name: rows[finished[name] :] for name, rows in before.items()}
    shown, began = _percent(task, folds, now, {}), time.monotonic()
    with progress(f"{len(folds)} folds, training", 100, done=shown, percent=True, ends=deadline) as meter:
        done = False
        while not done:
            done = wait()
            messages.show()
            now = {fold.name: read_rows(task.fold_folder(fold))[finished[fold.name] :] for fold in folds}
            meter.update("\n".join(_lines(task, folds, now, reports)))
            percent = _percent(task, folds, now, reports)
            if deadline is not None and not done:
                # The limit ends the training if the schedule does not; so something moves during validation.
                percent = max(percent, 100 * (time.monotonic() - began) / max(deadline - began, 1e-9))
            percent = max(shown, percent if done else min(percent, MOST_PERCENT))
            meter.advance(percent - shown)
            shown = percent


def _percent(
    task: TrainingRun,
    folds: Sequence[Fold],
    records: Mapping[str, Sequence[dict[str, Any]]],
    reports: Mapping[str, ProgressReport],
) -> float:
    """Return the mean progress of folds in percent.

    Args:
        task: Training run that the folds belong to.
        folds: The folds.
        records: Rows of the folds' logs by fold.
        reports: Newest reports of the folds that have begun.
    """
    shares = []
    for fold in folds:
        rows, report = records[fold.name], reports.get(fold.name)
        share = rows[-1]["progress"] if rows else 0.0
        if report is not None and _trains(report):
            share = max(share, report.share)
        if fold.validation:
            validated = _predicted(task, fold) / len(fold.validation) if share >= 1 else 0.0
            share = (1 - VALIDATION_SHARE) * share + VALIDATION_SHARE * validated
        shares.append(share)
    return 100 * mean(shares)


def _trains(report: ProgressReport) -> bool:
    return report.task.endswith(TRAINING)


def _predicted(task: TrainingRun, fold: Fold) -> int:
    return sum(task.prediction(fold, name).is_file() for name in fold.validation)


def _lines(
    task: TrainingRun,
    folds: Sequence[Fold],
    records: Mapping[str, Sequence[dict[str, Any]]],
    reports: Mapping[str, ProgressReport],
) -> list[str]:
    """Describe each fold at work in a line, those that are complete and those that wait in one line each."""
    lines, complete, waiting = [], [], []
    for fold in folds:
        rows, report = records[fold.name], reports.get(fold.name)
        trained = bool(rows) and rows[-1]["progress"] >= 1
        if trained and task.complete(fold):
            complete.append(fold.name)
        elif report is None:
            waiting.append(fold.name)
        elif trained:
            lines.append(
                f"fold {fold.name}: validating, {_predicted(task, fold)}/{len(fold.validation)} cases"
            )
        elif rows:
            lines.append(f"fold {fold.name}: {brief_summary(rows[-1])}")
        else:
            lines.append(f"fold {fold.name}: {report.text or 'starting'}")
    if complete:
        lines.insert(0, f"{_named(complete)}: complete")
    if waiting:
        lines.append(
            f"{_named(waiting)}: begin later" if len(waiting) > 1 else f"fold {waiting[0]}: begins later"
        )
    return lines


def _named(folds: Sequence[str]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}"
