"""From a plan to stored cases and trained folds."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from autospine.core.errors import FormatError, WorkspaceError
from autospine.dataset.raw import Dataset, load_dataset
from autospine.dataset.splits import FOLDS, FULL, Fold, full_fold, read_folds
from autospine.evaluation.held_out import read_cross_validation
from autospine.evaluation.scores import Evaluation
from autospine.pipeline.measuring import FOLDS_FILE, fresh_fingerprint, write_split
from autospine.pipeline.planning import read_plan
from autospine.plan import Configuration
from autospine.preprocessing import StoredCase, preprocess_dataset
from autospine.storage.arrays import ArrayFormat
from autospine.storage.trained_models import WEIGHTS
from autospine.storage.workspace import DatasetLocation
from autospine.system.allocation import prepare_memory
from autospine.system.devices import memory_budget
from autospine.system.hardware import cores, default_workers
from trainers import distributed
from trainers.cross_validation import train_folds
from trainers.fold_trainer import CACHE_BYTES
from trainers.initial_weights import load_start
from trainers.settings import Settings
from trainers.training_run import Task


def preprocess(
    location: DatasetLocation,
    configuration: Configuration,
    workers: int | None = None,
    arrays: ArrayFormat = "blosc2",
) -> tuple[Dataset, dict[str, StoredCase]]:
    """Store every case for a configuration, if it is not stored yet as the plan and the files are now."""
    dataset = load_dataset(location.raw)
    folder = location.preprocessed / configuration.cases
    stored = preprocess_dataset(
        dataset,
        read_plan(location),
        configuration,
        folder,
        workers or _workers_for(len(dataset.cases)),
        arrays=arrays,
    )
    return dataset, {case.name: case for case in stored}


def train(
    location: DatasetLocation,
    configuration: str,
    fold: str,
    settings: Settings,
    *,
    minutes: float | None = None,
) -> Evaluation | None:
    """Train folds of a configuration.

    Args:
        location: a planned dataset.
        configuration: index or name.
        fold: `all`, the index of one fold, or `full`.
        settings: the user's choices.
        minutes: time for everything; the schedule is fitted to it.

    Returns:
        The cross-validation so far, None for `full`.

    Raises:
        PlanError: if there is no such configuration.
        WorkspaceError: if there is no such fold or no plan.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    planned = read_plan(location)
    chosen = planned.configuration(configuration)
    if settings.pretrained is not None:
        load_start(settings.pretrained, planned, chosen)  # refused before anything is prepared
    dataset = load_dataset(location.raw)
    with distributed.one_first():
        folds = choose_folds(location, dataset, fold)
        dataset, stored = preprocess(location, chosen)
    prepare_memory(settings.device)  # not before: the volumes of preprocessing would be kept
    task = Task(
        dataset=dataset,
        plan=planned,
        configuration=chosen,
        stored=stored,
        folder=location.results / chosen.name,
        split=read_folds(split, dataset) if (split := location.preprocessed / FOLDS_FILE).is_file() else (),
    )
    return train_folds(task, folds, settings, deadline=deadline)


def folds_at_once(configuration: Configuration, budget: int, devices: Sequence[torch.device]) -> int:
    """How many folds may be trained side by side: one per GPU; on a CPU as many as the memory budget holds.

    Args:
        configuration: what is trained.
        budget: bytes that the plan allows.
        devices: GPUs, or a CPU alone.
    """
    if devices[0].type != "cpu":
        return len(devices)
    memory = min(budget, memory_budget(devices[0])[0])
    at_most = FOLDS if cores() > 1 else 1
    return max(1, min(at_most, memory // (configuration.memory_bytes + CACHE_BYTES)))


def sharers_of_cores(fold: str, at_once: int, processes: int) -> int:
    """How many trainings share the cores of this machine, each with its own processes that make patches.

    Args:
        fold: `all`, the index of one fold, or `full`.
        at_once: folds that may be trained side by side.
        processes: those of torchrun on this machine, which train one fold together.
    """
    return max(processes, min(at_once, FOLDS) if fold == "all" else 1)


def comparable(location: DatasetLocation) -> tuple[str, ...]:
    """Names of the models that were validated on every case: those that `compare` takes."""
    wanted = {case.name for case in load_dataset(location.raw).cases}
    return tuple(
        folder.name
        for folder in sorted({path.parents[1] for path in location.results.glob(f"*/fold_*/{WEIGHTS}")})
        if wanted <= _validated(folder)
    )


def check_fold(location: DatasetLocation, fold: str) -> None:
    """Raise as `choose_folds` does, before anything else is done."""
    with distributed.one_first():
        choose_folds(location, load_dataset(location.raw), fold)


def choose_folds(location: DatasetLocation, dataset: Dataset, fold: str) -> tuple[Fold, ...]:
    """The folds that a word of the command line stands for.

    Raises:
        WorkspaceError: if there is no such fold.
        DatasetError: if there are too few subjects for cross-validation.
    """
    if fold == FULL:
        return (full_fold(dataset),)
    if fold != "all" and not fold.isdigit():
        raise WorkspaceError(f"expected --fold all, full or the number of a fold, found {fold!r}")
    path = location.preprocessed / FOLDS_FILE
    if not path.is_file():
        write_split(location, dataset, fresh_fingerprint(location, dataset))
    folds = read_folds(path, dataset)
    if fold == "all":
        return folds
    found = tuple(candidate for candidate in folds if candidate.name == fold)
    if not found:
        known = ", ".join(candidate.name for candidate in folds)
        raise WorkspaceError(f"expected --fold all, full or one of {known}, found {fold!r}")
    return found


def _validated(folder: Path) -> set[str]:
    """The cases that a model was validated on."""
    try:
        return {case for cases in read_cross_validation(folder).folds.values() for case in cases}
    except FormatError:  # absent, or damaged: `compare` says it
        return set()


def _workers_for(cases: int) -> int:
    """Processes that pay: starting one costs as much as preprocessing several small cases."""
    return 1 if cases < 16 else default_workers()
