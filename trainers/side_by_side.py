"""Training of several folds at once, each in a process of its own that is watched through its log."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from statistics import mean
from typing import Any, TypeVar

import torch

from autospine.core.errors import TrainingError
from autospine.dataset.splits import Fold
from autospine.storage.trained_models import WEIGHTS
from autospine.system.allocation import reuse_freed_memory
from autospine.system.hardware import cores
from autospine.system.log import get_logger, progress, silence
from autospine.system.workers import SPAWN, ignore_interrupts, parent_lives
from trainers.checkpoints import Checkpoints
from trainers.fold_run import train_and_validate
from trainers.initial_weights import InitialWeights
from trainers.metrics_log import read_rows, rows_now, summary
from trainers.schedule import share_of_time
from trainers.settings import TrainingSettings
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 1.0
"""Time between two readings of the folds' logs, and between two checks of a worker that its parent lives."""

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM has ended, as shells report it."""


def train_side_by_side(
    task: TrainingRun, folds: Sequence[Fold], settings: TrainingSettings, deadline: float | None
) -> None:
    """Train several folds at once, each in a process of its own.

    Small patches keep one core busy but not several, and a core that another program occupies delays
    one fold rather than all threads of one. No core is idle in the last round: five folds on two cores are a
    round of three and a round of two, and the time of a round is proportional to its number of folds.

    With several GPUs, each process keeps one of them. The next fold goes to the GPU that is free first, and
    all rounds take equally long.

    Args:
        task: Training run that the folds belong to.
        folds: Folds to train, in order.
        settings: Settings of the training; `parallel` limits the number of processes.
        deadline: Value of `time.monotonic()` at which training has to end; None for no limit.

    Raises:
        TrainingError: If the process of a fold was killed, or if training a fold fails.
    """
    _say_where_folds_go_on(task, folds, extending=settings.extend is not None)
    places = settings.devices or (settings.device,)
    rounds = deal_rounds(folds, cores() if len(places) == 1 else settings.parallel, settings.parallel)
    free, stop = SPAWN.SimpleQueue(), SPAWN.Event()
    for index in range(len(rounds[0])):
        free.put(str(places[index % len(places)]))
    pool = ProcessPoolExecutor(
        len(rounds[0]),
        mp_context=SPAWN,
        initializer=_set_up_worker,
        initargs=(free, stop, task.initial_weights),
    )
    # The weights are sent to each worker once, not with each fold.
    sent = replace(task, initial_weights=None)
    try:
        futures = {
            pool.submit(
                _train_in_worker,
                sent,
                fold,
                settings,
                deadline,
                share=_round_share(rounds[index:], alike=len(places) > 1),
                threads=max(1, cores() // len(together)),
            ): fold
            for index, together in enumerate(rounds)
            for fold in together
        }
        _watch(task, futures, extending=settings.extend is not None)
        pool.shutdown(wait=True)
    except BrokenProcessPool:
        raise TrainingError(
            "expected every fold's process to finish, found one killed, probably for want of memory; "
            "run the same command again with fewer folds at once (--parallel 1): it resumes where it was"
        ) from None
    except BaseException:
        _end(pool, stop)
        raise


def _end(pool: ProcessPoolExecutor, stop: Event) -> None:
    """End the workers after an error or an interrupt; each finishes its step and writes a checkpoint."""
    stop.set()
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:  # a second interrupt: the user does not want to wait
        for process in multiprocessing.active_children():
            process.kill()
        raise


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


@dataclass(slots=True)
class _Worker:
    """State of a worker process."""

    place: torch.device
    """Device on which this process trains all its folds."""

    initial_weights: InitialWeights | None
    """Weights that its folds start from; None for random ones."""

    training: bool = False
    """Whether a fold is being trained now."""

    stopped: bool = False
    """Whether this process trains no further folds."""


_worker: list[_Worker] = []
"""State of this process if it is a worker; empty in the parent."""


def _set_up_worker(
    free: "SimpleQueue[str]", stop: Event, initial_weights: InitialWeights | None = None
) -> None:
    """Take one of the free devices and start to watch the parent; the pool calls this in each new worker."""
    _worker.append(_Worker(place=torch.device(free.get()), initial_weights=initial_weights))
    ignore_interrupts()
    silence()
    # The parent reads these warnings in the folds' logs and shows them without breaking the progress bar.
    get_logger("trainers.metrics_log").setLevel(logging.ERROR)
    reuse_freed_memory()
    threading.Thread(target=_follow, args=(_worker[0], stop), daemon=True).start()


def _follow(worker: _Worker, stop: Event) -> None:
    """Stop this worker if the parent asks for it, or if the parent has ended (perhaps killed)."""
    while not stop.wait(WATCH_SECONDS) and parent_lives():
        pass
    worker.stopped = True
    if worker.training:
        # The same as a SIGTERM from outside: training finishes the step and writes a checkpoint.
        os.kill(os.getpid(), signal.SIGTERM)
    elif not parent_lives():
        os._exit(TERMINATED)


def _train_in_worker(
    task: TrainingRun,
    fold: Fold,
    settings: TrainingSettings,
    deadline: float | None,
    *,
    share: float,
    threads: int,
) -> None:
    worker = _worker[0]
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    worker.training = True
    try:
        if worker.stopped:
            raise KeyboardInterrupt
        if worker.place.type == "cuda":
            torch.cuda.set_device(worker.place)
        run = replace(task, initial_weights=worker.initial_weights)
        train_and_validate(run, fold, replace(settings, device=worker.place), share_of_time(deadline, share))
    except KeyboardInterrupt:
        worker.stopped = True  # the pool may hand this process another fold
        if not parent_lives():
            os._exit(TERMINATED)
        raise
    finally:
        worker.training = False
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _say_where_folds_go_on(task: TrainingRun, folds: Sequence[Fold], *, extending: bool) -> None:
    """Log for each interrupted fold where it resumes, because the processes of the folds are silent.

    A fold that is trained already is only validated, and is not mentioned unless it is extended.
    """
    for fold in folds:
        folder = task.fold_folder(fold)
        facts = Checkpoints(folder).facts()
        if facts is not None and (extending or not (folder / WEIGHTS).is_file()):
            logger.info("fold %s resumes after epoch %d, step %d", fold.name, facts["epochs"], facts["step"])


def _watch(task: TrainingRun, futures: Mapping["Future[None]", Fold], *, extending: bool) -> None:
    """Show the folds' progress and warnings, which are read from their logs, until all are done or one fails.

    If folds are extended, the rows of their finished training do not count.
    """
    folds = list(futures.values())
    before = {fold.name: read_rows(task.fold_folder(fold)) for fold in folds}
    finished = {name: len(rows) - len(rows_now(rows)) if extending else 0 for name, rows in before.items()}
    now = {name: rows[finished[name] :] for name, rows in before.items()}
    # Warnings of an earlier run were shown then; only new ones are shown now.
    warned, shown = {name: _warnings(rows) for name, rows in now.items()}, _percent(now.values())
    with progress(f"{len(futures)} folds, training", 100, done=shown, percent=True) as meter:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=WATCH_SECONDS, return_when=FIRST_EXCEPTION)
            now = {fold.name: read_rows(task.fold_folder(fold))[finished[fold.name] :] for fold in folds}
            for fold in folds:
                for text in _warnings(now[fold.name]) - warned[fold.name]:
                    logger.warning("fold %s: %s", fold.name, text)
                warned[fold.name] |= _warnings(now[fold.name])
            for future in done:
                future.result()
            newest = {fold: now[fold.name][-1] for fold in folds if now[fold.name]}
            meter.update(
                "\n".join(
                    _status(task, fold, row)
                    for fold, row in newest.items()
                    if row["progress"] < 1 or not task.complete(fold)
                )
            )
            percent = _percent(now.values())
            meter.advance(percent - shown)
            shown = percent


def _percent(records: Iterable[Sequence[dict[str, Any]]]) -> int:
    """Return the mean progress of folds with these rows in percent."""
    return int(100 * mean(rows[-1]["progress"] if rows else 0.0 for rows in records))


def _warnings(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Return the texts of all warnings in these rows."""
    return {text for row in rows for text in row.get("warnings", {}).values()}


def _status(task: TrainingRun, fold: Fold, row: dict[str, Any]) -> str:
    """Describe the training or validation of a fold in a line."""
    if row["progress"] < 1:
        return f"fold {fold.name}: {'  '.join(summary(row))}"
    written = sum(task.prediction(fold, name).is_file() for name in fold.validation)
    return f"fold {fold.name}: validation {written}/{len(fold.validation)}"
