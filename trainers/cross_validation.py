"""Training of several folds, each validated on its held-out cases at its end."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from autospine.checkpoint import load_facts
from autospine.dataset import Dataset, case_modality
from autospine.errors import TrainingError
from autospine.evaluation import Evaluation
from autospine.files import remove_leftovers, write_text
from autospine.folds import Fold
from autospine.hardware import bfloat16_pays, cores
from autospine.images import read_volume, write_labels
from autospine.inference import WEIGHTS, Predictor, count_tiles, open_model
from autospine.log import get_logger, progress, silence, track
from autospine.network import reuse_freed_memory
from autospine.plan import Configuration, Plan
from autospine.preprocessing import StoredCase
from autospine.serialization import write_json
from autospine.validation import VALIDATION, HeldOut, score_held_out
from trainers import distributed
from trainers.fold import FoldTrainer, identity, other_start
from trainers.lock import locked
from trainers.pretrained import load_start
from trainers.randomness import deterministic
from trainers.record import read_rows, summary
from trainers.settings import Settings

logger = get_logger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 1.0
"""Time between two looks at the folds' records."""

SPARE = 0.03
"""Share of the time left that is kept for what cannot be foreseen."""

SECONDS_PER_CASE = 1.0
"""Reading, resampling and writing a validation case of ordinary size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is trained, from where and to where."""

    dataset: Dataset
    plan: Plan
    configuration: Configuration
    stored: Mapping[str, StoredCase]
    """Preprocessed cases by name."""

    folder: Path
    """The model folder."""

    split: tuple[Fold, ...] = ()
    """Every fold of the cross-validation, whichever are trained now."""


def train_folds(
    task: Task, folds: Sequence[Fold], settings: Settings, *, deadline: float | None = None
) -> Evaluation | None:
    """Train and validate folds, `settings.parallel` at a time; what was finished or begun is kept.

    Args:
        task: what is trained.
        folds: in order.
        settings: the user's choices.
        deadline: value of `time.monotonic()` by which everything should be done; what is left is shared
            evenly among the folds that are left, validation included.

    Returns:
        The evaluation over the validation cases of every fold trained so far, None without any, and for all
        but the first of several processes that train together.

    Raises:
        TrainingError: if the model folder holds folds of another plan, or begun from other weights.
    """
    every = tuple({fold.name: fold for fold in (*task.split, *folds)}.values())
    if distributed.leads():
        _claim(task, every, _start(task, settings))
    distributed.meet()
    extended = [] if settings.extend is None else _to_extend(task, folds)
    todo = [fold for fold in folds if fold not in extended and not _complete(task, fold)]
    for fold in folds:
        if fold not in (*todo, *extended):
            logger.info("fold %s is complete already", fold.name)
    _train_each(task, todo, replace(settings, extend=None), deadline)
    _train_each(task, extended, settings, deadline)
    return cross_validation(task, every) if distributed.leads() else None


def _to_extend(task: Task, folds: Sequence[Fold]) -> list[Fold]:
    """The folds that are behind: those that have been extended least often.

    So a command that was interrupted extends each fold once when it is given again, and a command that was
    not interrupted extends them all once more.
    """
    untrained = [fold.name for fold in folds if not (_fold_folder(task, fold) / WEIGHTS).is_file()]
    if untrained:
        raise TrainingError(
            f"expected complete folds in {task.folder} to extend, found {', '.join(untrained)} not trained "
            "to the end; give the command without --extend first"
        )
    times = [int(load_facts(_fold_folder(task, fold) / WEIGHTS).get("extensions", 0)) for fold in folds]
    behind = [fold for fold, number in zip(folds, times, strict=True) if number == min(times)]
    only_validation_lacks = min(times) > 0 and not all(_complete(task, fold) for fold in folds)
    return [] if len(behind) == len(folds) and only_validation_lacks else behind


def _train_each(task: Task, folds: Sequence[Fold], settings: Settings, deadline: float | None) -> None:
    if min(settings.parallel, len(folds)) > 1 and distributed.size() == 1:
        _train_side_by_side(task, folds, settings, deadline)
        return
    for index, fold in enumerate(folds):
        _train_and_validate(task, fold, settings, _share(deadline, 1 / (len(folds) - index)))


def cross_validation(task: Task, folds: Sequence[Fold]) -> Evaluation | None:
    """Score the validation predictions of the folds that are complete, and choose a cleanup by them."""
    done = [fold for fold in folds if fold.validation and _complete(task, fold)]
    if not done:
        return None
    held_out = [
        HeldOut(fold=fold.name, cases=fold.validation, folder=_fold_folder(task, fold) / VALIDATION)
        for fold in done
    ]
    return score_held_out(task.folder, held_out, task.dataset, task.plan.labels)


def _start(task: Task, settings: Settings) -> str | None:
    """Digest of the weights that folds begin from, None for random ones."""
    if settings.pretrained is None:
        return None
    start = load_start(settings.pretrained, task.plan, task.configuration)
    logger.info(start.report)
    return start.digest


def _claim(task: Task, folds: Sequence[Fold], start: str | None) -> None:
    """Make the model folder this plan's; refuse one with folds of another plan or split.

    Weights that were trained on other cases, labels or normalisation would be validated on what they have
    seen, or predict what they never learnt. Folds that began from other weights would be no cross-validation
    of anything; `start` is the digest of those to begin from.
    """
    plan = identity(task.plan, task.configuration, ())
    wanted = {f"fold_{fold.name}": identity(task.plan, task.configuration, fold.training) for fold in folds}
    others, begun = [], []
    for weights in sorted(task.folder.glob(f"fold_*/{WEIGHTS}")):
        facts, name = load_facts(weights), weights.parent.name
        if facts.get("plan") != plan or facts.get("identity") != wanted.get(name, facts.get("identity")):
            others.append(name)
        elif facts.get("weights") != start:
            begun.append(name)
    if begun and not others:
        raise TrainingError(other_start(task.folder, begun))
    if others:
        raise TrainingError(
            f"expected folds of the present plan and split in {task.folder}, found {', '.join(others)} of "
            "another; move that folder away to train anew, or restore the earlier plan.json and folds.json"
        )
    write_json(task.folder / "plan.json", replace(task.plan, configurations=(task.configuration,)))
    description = (task.dataset.folder / "dataset.json").read_text(encoding="utf-8")
    write_text(task.folder / "dataset.json", description)


def _complete(task: Task, fold: Fold) -> bool:
    folder = _fold_folder(task, fold)
    predicted = all(_prediction(task, fold, name).is_file() for name in fold.validation)
    return (folder / WEIGHTS).is_file() and predicted


def _share(deadline: float | None, share: float) -> float | None:
    """This share of the time left, in seconds."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TrainingError(
            "expected time for the folds that are left, found none; "
            "run the same command again: complete folds are kept"
        )
    return left * (1 - SPARE) * share


def _train_side_by_side(
    task: Task, folds: Sequence[Fold], settings: Settings, deadline: float | None
) -> None:
    """Train several folds at once, each in a process of its own.

    Small patches keep one core busy but not several, and a core that another program takes away holds
    up one fold, not all threads of one. No core is idle in the last round: five folds on two cores are a
    round of three and a round of two, and a round's time is in proportion to its folds.

    Where there are several GPUs each process keeps one of them, so that the next fold goes to the one that is
    free first, and every round takes as long.
    """
    places = settings.devices or (settings.device,)
    rounds = deal_rounds(folds, cores() if len(places) == 1 else settings.parallel, settings.parallel)
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for index in range(len(rounds[0])):
        free.put(str(places[index % len(places)]))
    pool = ProcessPoolExecutor(
        len(rounds[0]), mp_context=context, initializer=_set_up_worker, initargs=(free,)
    )
    try:
        futures = {
            pool.submit(
                _train_in_worker,
                task,
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
            "run the same command again with fewer folds at once (--parallel 1): it goes on where it was"
        ) from None
    except BaseException:
        _end(pool)
        raise


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers after a fault or an interrupt; each finishes its step and writes a checkpoint first."""
    for process in multiprocessing.active_children():
        process.terminate()
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:  # the user will not wait
        for process in multiprocessing.active_children():
            process.kill()
        raise


def deal_rounds(folds: Sequence[T], cores: int, most: int) -> list[Sequence[T]]:
    """Folds in rounds of nearly equal size that keep all cores busy, `most` at a time, large rounds first."""
    n = len(folds)
    rounds = max(n // cores, -(-n // most), 1)
    sizes = [n // rounds + (index < n % rounds) for index in range(rounds)]
    starts = [sum(sizes[:index]) for index in range(rounds)]
    return [folds[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _round_share(rounds: Sequence[Sequence[Fold]], *, alike: bool) -> float:
    """The first round's share of the time left; rounds take alike long, or in proportion to their folds."""
    return 1 / len(rounds) if alike else len(rounds[0]) / sum(len(folds) for folds in rounds)


_place: list[torch.device] = []
"""Of a worker process: the device that it keeps."""


def _set_up_worker(free: "SimpleQueue[str]") -> None:
    _place.append(torch.device(free.get()))
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence()
    # The parent reads these warnings in the folds' records, and says them where they spoil no bar.
    get_logger("trainers.record").setLevel(logging.ERROR)
    reuse_freed_memory()


def _train_in_worker(
    task: Task, fold: Fold, settings: Settings, deadline: float | None, *, share: float, threads: int
) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if _place[0].type == "cuda":
            torch.cuda.set_device(_place[0])
        _train_and_validate(task, fold, replace(settings, device=_place[0]), _share(deadline, share))
    except KeyboardInterrupt:
        # The pool would hand this process the next fold.
        os._exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(task: Task, futures: Mapping["Future[None]", Fold], *, extending: bool) -> None:
    """Show the folds' progress and warnings until all are done or one fails; their records tell both.

    Of folds that are extended, what the records say already is that of the finished training.
    """
    shown, folds = 0, list(futures.values())
    before = {fold.name: read_rows(_fold_folder(task, fold)) for fold in folds}
    finished = {name: len(rows) if extending else 0 for name, rows in before.items()}
    said = {name: _warnings(rows) for name, rows in before.items()}
    with progress(f"{len(futures)} folds, training %", 100) as meter:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=WATCH_SECONDS, return_when=FIRST_EXCEPTION)
            rows = {fold.name: read_rows(_fold_folder(task, fold)) for fold in folds}
            for fold in folds:
                for text in _warnings(rows[fold.name]) - said[fold.name]:
                    logger.warning("fold %s: %s", fold.name, text)
                said[fold.name] |= _warnings(rows[fold.name])
            for future in done:
                future.result()
            newest = {f: rows[f.name][-1] for f in folds if len(rows[f.name]) > finished[f.name]}
            meter.update(
                "\n".join(
                    _status(task, fold, row)
                    for fold, row in newest.items()
                    if row["progress"] < 1 or not _complete(task, fold)
                )
            )
            percent = int(sum(100 * row["progress"] for row in newest.values()) / len(folds))
            meter.advance(percent - shown)
            shown = percent


def _warnings(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Every warning of a fold's record."""
    return {text for row in rows for text in row.get("warnings", {}).values()}


def _status(task: Task, fold: Fold, row: dict[str, Any]) -> str:
    """What a fold is doing, in a line."""
    if row["progress"] < 1:
        return f"fold {fold.name}: {'  '.join(summary(row))}"
    written = sum(_prediction(task, fold, name).is_file() for name in fold.validation)
    return f"fold {fold.name}: validation {written}/{len(fold.validation)}"


def _train_and_validate(task: Task, fold: Fold, settings: Settings, seconds: float | None) -> None:
    folder = _fold_folder(task, fold)
    lock = locked(folder) if distributed.leads() else nullcontext()
    with lock, deterministic(settings.deterministic):
        if distributed.leads():
            remove_leftovers(folder)
            remove_leftovers(folder / VALIDATION)
        distributed.meet()
        network = _trained(task, fold, settings, seconds)
        _validate(task, fold, network, settings.device)
        distributed.meet()


def _trained(task: Task, fold: Fold, settings: Settings, seconds: float | None) -> nn.Module:
    """The fold's network, from its folder or by training."""
    folder = _fold_folder(task, fold)
    if (folder / WEIGHTS).is_file() and settings.extend is None:
        return next(iter(open_model(task.folder).networks([fold.name]))).to(settings.device)
    began = time.monotonic()
    trainer = FoldTrainer(
        plan=task.plan,
        configuration=task.configuration,
        cases=[task.stored[name] for name in fold.training],
        folder=folder,
        name=fold.name,
        settings=settings,
    )
    if seconds is not None:
        needed = _validation_seconds(task, fold, trainer.learner.network, settings.device)
        left = seconds - (time.monotonic() - began)
        seconds = max(left - needed, 0.5 * left)
    return trainer.run(seconds)


def _validate(task: Task, fold: Fold, network: nn.Module, device: torch.device) -> None:
    """Predict the held-out cases on their own grids; processes that train together share them."""
    predictor = Predictor(plan=task.plan, configuration=task.configuration, networks=[network], device=device)
    held_out = [case for case in task.dataset.cases if case.name in fold.validation]
    cases = held_out[distributed.rank() :: distributed.size()]
    for case in track(cases, f"fold {fold.name}, validation"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(_prediction(task, fold, case.name), labels, volume.stored)


def _validation_seconds(task: Task, fold: Fold, network: nn.Module, device: torch.device) -> float:
    """How long validation will take, from the time of one tile."""
    patch = task.configuration.patch_size
    image = torch.zeros((1, len(task.plan.channels), *patch), device=device)
    network.eval()
    bfloat16 = task.configuration.training.precision == "bfloat16" and bfloat16_pays(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        network(image)
        began = time.monotonic()
        network(image)
        float(network(image).sum())
    per_tile = (time.monotonic() - began) / 2
    tiles = [count_tiles(task.stored[name].shape, patch) for name in fold.validation]
    return (per_tile * sum(tiles) + SECONDS_PER_CASE * len(fold.validation)) / distributed.size()


def _fold_folder(task: Task, fold: Fold) -> Path:
    return task.folder / f"fold_{fold.name}"


def _prediction(task: Task, fold: Fold, case: str) -> Path:
    return _fold_folder(task, fold) / VALIDATION / f"{case}{task.plan.file_ending}"
