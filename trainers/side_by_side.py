"""Training of several folds at once, each in a process of its own that is watched through its log."""

import logging
import os
import signal
import threading
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
from trainers.fold_processes import FoldJob, FoldPipes, FoldProcesses
from trainers.fold_run import train_and_validate
from trainers.metrics_log import EARLY_STOP, brief_summary, read_rows, rows_now
from trainers.progress_report import TRAINING, ProgressReport, Reporter
from trainers.schedule import share_of_time
from trainers.settings import TrainingSettings
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 1.0
"""Time between two readings of the folds' logs, and between two checks that their processes live."""


def train_side_by_side(
    task: TrainingRun, folds: Sequence[Fold], settings: TrainingSettings, deadline: float | None
) -> None:
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

    def start(job: FoldJob, place: torch.device, pipes: FoldPipes) -> SpawnProcess:
        """Start the process of a fold on a device."""
        process = SPAWN.Process(
            target=_train_in_process,
            name=f"fold {job.fold.name}",
            args=(pipes, task, job, replace(settings, device=place), deadline),
        )
        process.start()
        return process

    processes = FoldProcesses(jobs, used, start)
    try:
        watch_folds(
            task,
            folds,
            lambda: processes.wait(WATCH_SECONDS),
            processes.reports,
            extending=extending,
            deadline=deadline,
        )
    finally:
        processes.end()


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


def _train_in_process(
    pipes: FoldPipes,
    task: TrainingRun,
    job: FoldJob,
    settings: TrainingSettings,
    deadline: float | None,
) -> None:
    """Train a fold; a process begins here."""
    ignore_interrupts()
    silence(Reporter(pipes.reports).meter)
    # The parent reads these warnings in the folds' logs and shows them without breaking the progress bar.
    get_logger("trainers.metrics_log").setLevel(logging.ERROR)
    reuse_freed_memory()
    torch.set_num_threads(job.threads)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop_once)
    error: BaseException | None = None
    try:
        threading.Thread(target=_follow, args=(pipes.stop,), daemon=True).start()
        if settings.device.type == "cuda":
            torch.cuda.set_device(settings.device)
        train_and_validate(task, job.fold, settings, share_of_time(deadline, job.share))
    except KeyboardInterrupt:  # the parent knows, or is gone, or somebody has ended this process alone
        error = TrainingError(
            f"the process of fold {job.fold.name} was ended; run the same command again: it resumes where "
            "it was"
        )
    except BaseException as raised:  # other people's networks and losses may raise what they want
        error = portable(raised)
    with suppress(OSError):  # the parent is gone
        pipes.outcome.send(error)


def _follow(stop: Connection) -> None:
    """Stop this process if the parent asks for it, or if the parent has ended (perhaps killed)."""
    with suppress(OSError):
        stop.poll(None)
    # The same as a SIGTERM from outside: training finishes the step and writes a checkpoint.
    os.kill(os.getpid(), signal.SIGTERM)


def _stop_once(number: int, _: FrameType | None) -> None:
    """Stop; the same request may come from the parent, from outside and from a terminal that is closed."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


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
    *,
    extending: bool,
    deadline: float | None,
) -> None:
    """Show the folds' progress and warnings, until all are done or one fails.

    Progress comes from the reports of their processes, everything else from their logs.

    Args:
        task: Training run that the folds belong to.
        folds: Folds that are trained.
        wait: Waits a moment; returns whether all folds are done, and raises what went wrong in one.
        reports: Newest reports of the folds, which change during a wait.
        extending: Whether folds are extended: then the rows of their finished training do not count.
        deadline: Value of `time.monotonic()` at which all folds are to be done; None for no limit.
    """
    before = {fold.name: read_rows(task.fold_folder(fold)) for fold in folds}
    finished = {name: len(rows) - len(rows_now(rows)) if extending else 0 for name, rows in before.items()}
    now = {name: rows[finished[name] :] for name, rows in before.items()}
    # Messages of an earlier run were shown then; only new ones are shown now.
    said, shown = {name: _messages(rows) for name, rows in now.items()}, _percent(now, {})
    with progress(f"{len(folds)} folds, training", 100, done=shown, percent=True, ends=deadline) as meter:
        done = False
        while not done:
            failure: BaseException | None = None
            try:
                done = wait()
            except Exception as error:  # raised once the folds' last warnings are shown
                failure = error
            now = {fold.name: read_rows(task.fold_folder(fold))[finished[fold.name] :] for fold in folds}
            for fold in folds:
                for level, text in _messages(now[fold.name]) - said[fold.name]:
                    logger.log(level, "fold %s: %s", fold.name, text)
                said[fold.name] |= _messages(now[fold.name])
            if failure is not None:
                raise failure
            lines = [_status(task, fold, now[fold.name], reports.get(fold.name)) for fold in folds]
            meter.update("\n".join(line for line in lines if line))
            percent = _percent(now, reports)
            meter.advance(percent - shown)
            shown = percent


def _percent(records: Mapping[str, Sequence[dict[str, Any]]], reports: Mapping[str, ProgressReport]) -> float:
    """Return the mean progress of the training of folds in percent.

    Args:
        records: Rows of the folds' logs by fold.
        reports: Newest reports of the folds that have sent any.
    """
    shares = []
    for name, rows in records.items():
        share = rows[-1]["progress"] if rows else 0.0
        report = reports.get(name)
        shares.append(max(share, report.share) if report and _trains(report) else share)
    return 100 * mean(shares)


def _trains(report: ProgressReport) -> bool:
    return report.task.endswith(TRAINING)


def _messages(rows: Sequence[dict[str, Any]]) -> set[tuple[int, str]]:
    """Return levels and texts of all messages in these rows."""
    warnings = {(logging.WARNING, text) for row in rows for text in row.get("warnings", {}).values()}
    return warnings | {(logging.INFO, row[EARLY_STOP]) for row in rows if EARLY_STOP in row}


def _status(
    task: TrainingRun, fold: Fold, rows: Sequence[dict[str, Any]], report: ProgressReport | None
) -> str | None:
    """Describe the training or validation of a fold in a line; None for a fold that waits or is done."""
    if rows and rows[-1]["progress"] >= 1:
        if task.complete(fold):
            return None
        written = sum(task.prediction(fold, name).is_file() for name in fold.validation)
        return f"fold {fold.name}: validation {written}/{len(fold.validation)}"
    if rows:
        return f"fold {fold.name}: {brief_summary(rows[-1])}"
    return None if report is None else f"fold {fold.name}: {report.text}"
