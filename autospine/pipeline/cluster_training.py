"""Training of folds on the workers of a cluster, each in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from autospine.cluster.dask_cluster import DaskCluster
from autospine.cluster.executor import Lost, Need, Task
from autospine.cluster.worker_side import unwanted_check, wait_for_lock, worker_threads
from autospine.core.errors import AutospineError, TrainingError, counted, listed_faults
from autospine.evaluation.scores import Evaluation
from autospine.pipeline.planned_dataset import PlannedDataset
from autospine.pipeline.training import Project, choose_settings, preprocess, train
from autospine.storage.file_names import folder_to_write
from autospine.storage.locks import is_held
from autospine.storage.trained_models import fold_folder, named_model, portable_model
from autospine.system.devices import choose_device
from autospine.system.fresh_process import call_in_fresh_process
from autospine.system.log import progress
from trainers.fold_run import TRAINING_LOCK
from trainers.metrics_log import brief_summary, read_rows
from trainers.training_options import TrainingOptions

MOST_SHOWN = 99.0
"""Most per cent that are shown before all folds have ended: after its training a fold is validated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldTraining:
    """The training of one fold of a model."""

    project: Project
    planned: PlannedDataset
    fold: str
    options: TrainingOptions
    device: str
    """Device as the user names it; of each worker."""

    minutes: float | None
    """Time limit; None for none."""

    folder: Path
    """Model folder."""

    name: str
    """Name for messages."""


def train_folds_on_cluster(
    project: Project,
    planned: PlannedDataset,
    fold: str,
    options: TrainingOptions,
    cluster: DaskCluster,
    device: str,
    minutes: float | None,
) -> Evaluation | None:
    """Preprocess cases and train folds on the workers, and score the folds here.

    Args:
        project: What is trained.
        planned: The planned dataset that it was opened from.
        fold: `all`, the name of one fold, or `full`.
        options: The user's choices.
        cluster: The workers.
        device: Device of each worker, as the user names it.
        minutes: Time for the training of all folds, of which each has an equal share if there are fewer
            workers than folds; None for no limit.

    Returns:
        The cross-validation so far, None for `full`.

    Raises:
        AutospineError: As `train_on_cluster` and `train` say.
    """
    location, folds = project.location, project.folds(fold)
    preprocess(location, project.dataset, project.plan, project.configuration, cluster=cluster)
    folder = folder_to_write(location.results, project.configuration.name)
    start = options.pretrained
    on_workers = replace(options, pretrained=None if start is None else portable_model(start))
    rounds = -(-len(folds) // cluster.workers)
    trainings = [
        FoldTraining(
            project=project,
            planned=planned,
            fold=each.name,
            options=on_workers,
            device=device,
            minutes=None if minutes is None else minutes / rounds,
            folder=folder,
            name=f"fold {each.name}",
        )
        for each in folds
    ]
    train_on_cluster(trainings, cluster)
    here = torch.device("cpu")
    settings = choose_settings(replace(options, extend=None), planned, fold, device=here, name="cpu")
    return train(project, fold, settings)


def train_on_cluster(trainings: Sequence[FoldTraining], cluster: DaskCluster) -> None:
    """Train folds on the workers, each alone in its worker, and show how far they are.

    The folds are validated; who trains the model's folds afterwards finds them complete, and scores them.

    Args:
        trainings: Folds of one model, or of several.
        cluster: The workers.

    Raises:
        TrainingError: If a fold's training fails, or its worker was killed too often.
        ClusterError: If no worker is large enough, or the cluster is gone.
    """
    tasks = [
        Task(name=training.name, argument=training, need=_need(training, cluster)) for training in trainings
    ]
    faults: dict[str, str] = {}
    with progress(f"{counted(len(tasks), 'fold')}, on the cluster", 100, percent=True) as meter:
        shown = 0.0
        for event in cluster.events(train_on_worker, tasks):
            if event is not None:
                task, outcome = event
                if outcome is not None:
                    faults[task.name] = outcome.reason if isinstance(outcome, Lost) else outcome
            share, text = _state(trainings)
            meter.update(text)
            share = min(100 * share, MOST_SHOWN)
            meter.advance(max(0.0, share - shown))
            shown = max(shown, share)
        meter.advance(100 - shown)
    if faults:
        raise TrainingError(
            f"expected {counted(len(tasks), 'fold')} to be trained, found that {len(faults)} failed: "
            + listed_faults([f"{name}: {fault}" for name, fault in faults.items()])
        )


def _need(training: FoldTraining, cluster: DaskCluster) -> Need:
    """Return what a worker has to have: a GPU where one is to be used, else the memory of the training."""
    gpu = cluster.uses_gpu(training.device)
    memory = 0 if gpu else training.project.configuration.memory_bytes
    return Need(memory_bytes=memory, gpu=gpu, alone=True)


def train_on_worker(training: FoldTraining) -> str | None:
    """Train a fold in a fresh process of a worker, once no other process trains it.

    A fold whose worker was killed comes here from another one, while its process writes a checkpoint.

    Returns:
        Why it could not be trained; None if it was.
    """
    lock = fold_folder(training.folder, training.fold) / TRAINING_LOCK
    wait_for_lock(lock)
    try:
        call_in_fresh_process(_train, (training, worker_threads()), unwanted_check())
    except AutospineError as error:  # the other folds go on
        return str(error)
    return None


def _train(given: tuple[FoldTraining, int]) -> None:
    """Train a fold with so many threads."""
    training, threads = given
    torch.set_num_threads(threads)
    device, start = choose_device(training.device), training.options.pretrained
    options = replace(training.options, pretrained=None if start is None else named_model(start))
    settings = choose_settings(options, training.planned, training.fold, device=device, name=training.device)
    train(training.project, training.fold, settings, minutes=training.minutes, folder=training.folder)


def _state(trainings: Sequence[FoldTraining]) -> tuple[float, str]:
    """Return the mean progress of the folds, from 0 to 1, and a line for each that is at work."""
    shares, lines = [], []
    for training in trainings:
        folder = fold_folder(training.folder, training.fold)
        rows = read_rows(folder)
        shares.append(rows[-1]["progress"] if rows else 0.0)
        if is_held(folder / TRAINING_LOCK):
            lines.append(f"{training.name}: {brief_summary(rows[-1]) if rows else 'starting'}")
    return mean(shares), "\n".join(lines)
