"""Training: from a plan to stored cases and trained folds."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from autospine.cluster.executor import Executor
from autospine.core.errors import FormatError
from autospine.dataset.case_parts import CasePart
from autospine.dataset.raw import Dataset, load_dataset
from autospine.dataset.splits import ALL, Fold, FoldsFile, folds_of, full_fold
from autospine.evaluation.scores import Evaluation
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.network.swin.swin_plan import SwinPlan
from autospine.pipeline.measuring import fresh_fingerprint, write_split
from autospine.pipeline.planned_dataset import FOLDS_FILE, PlannedDataset, check_fold
from autospine.plan import Configuration, DeviceKind, Plan
from autospine.preprocessing.preprocess import preprocess_dataset
from autospine.preprocessing.store import StoredCase
from autospine.storage.arrays import ArrayFormat
from autospine.storage.file_names import folder_to_write
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import FOLDS, FULL
from autospine.storage.workspace import DatasetLocation
from autospine.system.allocation import prepare_memory
from autospine.system.cards import Card, able_to_train, devices_like, look_at_all, memory_budget
from autospine.system.hardware import cores, default_workers
from autospine.system.log import get_logger
from trainers import distributed
from trainers.cross_validation import train_folds
from trainers.fold_trainer import CACHE_BYTES
from trainers.initial_weights import load_initial_weights
from trainers.settings import LONG_MINUTES, TrainingSettings
from trainers.training_options import TrainingOptions
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

SLOW_CUDNN = range(90800, 91500)
"""Versions of cuDNN, 9.8 to 9.14, to which PyTorch does not leave 3D convolutions of 16 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A planned dataset with its cases and its folds: what the training of any fold is made of."""

    location: DatasetLocation
    plan: Plan
    configuration: Configuration
    dataset: Dataset
    split: tuple[Fold, ...]
    """Every fold of the cross-validation; none where one model is trained on every case."""

    def folds(self, fold: str) -> tuple[Fold, ...]:
        """Return the folds that a word of the command line stands for.

        Args:
            fold: `all`, the name of one fold, or `full`.

        Raises:
            WorkspaceError: If there is no such fold.
        """
        check_fold(fold, [known.name for known in self.split])
        if fold == FULL:
            return (full_fold(self.dataset),)
        return tuple(known for known in self.split if fold in (ALL, known.name))


def open_project(planned: PlannedDataset, fold: str, dataset: Dataset | None = None) -> Project:
    """Read the cases and the folds of a planned dataset; the folds are made if there are none yet.

    Args:
        planned: The dataset.
        fold: What is trained: `all`, the name of one fold, or `full`, for which no folds are made.
        dataset: The raw dataset where it has been read already.

    Raises:
        DatasetError: If the raw dataset is faulty, or has too few subjects for cross-validation.
        FormatError: If `folds.json` does not fit the dataset.
    """
    location, file = planned.location, planned.folds_file
    path = location.preprocessed / FOLDS_FILE
    dataset = dataset or load_dataset(location.raw)
    if file is None and fold != FULL:
        if not path.is_file():  # of several processes the first one has made it
            write_split(location, dataset, fresh_fingerprint(location, dataset))
        file = read_json(path, FoldsFile)
    return Project(
        location=location,
        plan=planned.plan,
        configuration=planned.configuration,
        dataset=dataset,
        split=() if file is None else folds_of(file, path, dataset),
    )


def preprocess(
    location: DatasetLocation,
    dataset: Dataset,
    plan: Plan,
    configuration: Configuration,
    workers: int | None = None,
    arrays: ArrayFormat = "blosc2",
    part: CasePart | None = None,
    cluster: Executor | None = None,
) -> dict[str, StoredCase]:
    """Store the cases for a configuration, unless they are stored already as plan and files are now.

    Args:
        location: Folders of the dataset.
        dataset: The raw dataset.
        plan: The dataset's plan.
        configuration: One of the plan's.
        workers: Worker processes; by default one for few cases, else one per core.
        arrays: Format of the stored arrays.
        part: Part of the cases that is stored; None for all of them.
        cluster: Stores the cases instead of this machine's processes.

    Returns:
        The stored cases by name.
    """
    folder = folder_to_write(location.preprocessed, configuration.cases)
    stored = preprocess_dataset(
        *(dataset, plan, configuration, folder),
        workers or _workers_for(len(dataset.cases) // (1 if part is None else part.count)),
        arrays=arrays,
        part=part,
        cluster=cluster,
    )
    return {case.name: case for case in stored}


def train(
    project: Project,
    fold: str,
    settings: TrainingSettings,
    *,
    minutes: float | None = None,
    began: float | None = None,
    folder: Path | None = None,
) -> Evaluation | None:
    """Train folds of a configuration.

    Args:
        project: What is trained.
        fold: `all`, the name of one fold, or `full`.
        settings: The user's choices.
        minutes: Time for everything, in minutes; the schedule is fitted to it.
        began: Value of `time.monotonic()` from which they count; None for now.
        folder: Model folder; None for that of the configuration in the workspace's results.

    Returns:
        The cross-validation so far, None for `full`.

    Raises:
        WorkspaceError: If there is no such fold.
    """
    if minutes is not None and minutes < LONG_MINUTES and settings.compiled is None:
        settings = replace(settings, compiled=False)
    began = time.monotonic() if began is None else began
    deadline = None if minutes is None else began + 60 * minutes
    location, plan, configuration = project.location, project.plan, project.configuration
    folds = project.folds(fold)
    initial_weights = None  # read once, and refused before anything is prepared
    if settings.pretrained is not None:
        initial_weights = load_initial_weights(settings.pretrained, plan, configuration)
    with distributed.one_first():
        stored = preprocess(location, project.dataset, plan, configuration)
    prepare_memory(settings.device)  # not before: the volumes of preprocessing would be kept
    task = TrainingRun(
        dataset=project.dataset,
        plan=plan,
        configuration=configuration,
        stored=stored,
        folder=folder or folder_to_write(location.results, configuration.name),
        initial_weights=initial_weights,
        split=project.split,
    )
    return train_folds(task, folds, settings, deadline=deadline)


def choose_settings(
    options: TrainingOptions,
    planned: PlannedDataset,
    fold: str,
    *,
    device: torch.device,
    name: str,
    look: Callable[[Sequence[torch.device]], Sequence[Card]] = look_at_all,
) -> TrainingSettings:
    """Choose devices and worker processes for what is trained; what the user has chosen stays.

    Args:
        options: The user's choices.
        planned: What is trained.
        fold: `all`, the name of one fold, or `full`.
        device: The device of this process.
        name: The device as the user named it.
        look: Looks at GPUs, of which only those that can hold the training get folds.

    Raises:
        TrainingError: If the user's choices contradict each other.
    """
    processes = distributed.size()
    devices = devices_like(device, name) if processes == 1 else (device,)
    if fold == ALL and len(devices) > 1:
        devices = _able_devices(planned.configuration, look(devices)) or (device,)
        device = devices[0]
    at_once = options.parallel or folds_at_once(
        planned.configuration, planned.plan.memory_budget_bytes, devices
    )
    if processes > 1:
        at_once = 1  # all processes train one fold together
    sharers = sharers_of_cores(fold, at_once, distributed.size_here())
    workers = 0 if device.type == "cpu" else default_workers(sharers)
    chosen = {field.name: getattr(options, field.name) for field in fields(options)}
    return TrainingSettings(
        **chosen
        | {
            "workers": workers if options.workers is None else options.workers,
            "parallel": at_once,
            "trackers": tuple(dict.fromkeys(options.trackers)),
            "device": device,
            "devices": devices if len(devices) > 1 else (),
            "threads": _fixed_threads(options, fold) if device.type == "cpu" and processes == 1 else None,
        }
    )


def _able_devices(configuration: Configuration, cards: Sequence[Card]) -> tuple[torch.device, ...]:
    """Return the GPUs that can hold a training, and name those that are left out."""
    able, faults = able_to_train(cards, configuration.memory_bytes, configuration.training.precision)
    if faults:
        rest = "the other GPUs train the folds" if able else "folds train one after the other, on the first"
        logger.warning("%s: %s", "; ".join(faults), rest)
    return tuple(card.device for card in able)


def warn_of_slow_convolutions(configuration: Configuration, device: torch.device, cudnn: int | None) -> None:
    """Warn of a cuDNN that leaves 3D convolutions of 16 bits to slow kernels, where the network has such.

    PyTorch hands them over to cuDNN outside of `SLOW_CUDNN` alone, or where channels lie last, as they do in
    the Swin networks but for a fusion in the stem (pytorch#166122).

    Args:
        configuration: Configuration that is trained.
        device: Device that it is trained on.
        cudnn: Version of cuDNN as PyTorch states it; None without.
    """
    network = configuration.network
    if cudnn not in SLOW_CUDNN or device.type == "cpu" or configuration.training.precision == "float32":
        return
    fusion = network.fusion if isinstance(network, SwinPlan) else None
    if not isinstance(network, SwinPlan) or (fusion is not None and fusion.placement != "embedding"):
        logger.warning(
            "cuDNN %s makes the 3D convolutions of %s several times slower: "
            "run `pip install 'nvidia-cudnn-cu12>=9.15'` for a version without this fault",
            *(cudnn, network.name),
        )


def warn_of_another_device(planned: PlannedDataset, device: torch.device) -> None:
    """Warn where a plan was made for the other kind of device than it is trained on, with what to type."""
    kind: DeviceKind = "cpu" if device.type == "cpu" else "gpu"
    if planned.plan.device in (None, kind):
        return
    location = planned.location
    words = (
        "autospine",
        "plan-and-preprocess",
        "-d",
        location.name,
        *location.workspace.option,
        "--for",
        kind,
    )
    logger.warning(
        "the plan of %s is for a %s, and training runs on %s: %s; for a plan of its own type `%s`",
        *(location.name, "GPU" if kind == "cpu" else "CPU", device),
        "steps take long there, and there are many"
        if kind == "cpu"
        else "patches, network and schedule are those for a machine without a GPU",
        shlex.join(words),
    )


def _fixed_threads(options: TrainingOptions, fold: str) -> int | None:
    """Return the threads of each fold where the weights must be the same every time, else None.

    They follow from what the user asks for alone, `OMP_NUM_THREADS` included, neither from the folds that are
    left nor from the memory that is free.
    """
    if not options.deterministic:
        return None
    allowed = min(cores(), torch.get_num_threads())
    return max(1, allowed // min(allowed, sharers_of_cores(fold, options.parallel or FOLDS, 1)))


def folds_at_once(configuration: Configuration, budget: int, devices: Sequence[torch.device]) -> int:
    """Return how many folds may be trained side by side: one per GPU; on a CPU as many as the memory holds.

    Args:
        configuration: The configuration that is trained.
        budget: Memory that the plan allows, in bytes.
        devices: GPUs, or a CPU alone.
    """
    if devices[0].type != "cpu":
        return len(devices)
    memory = min(budget, memory_budget(devices[0])[0])
    at_most = FOLDS if cores() > 1 else 1
    return max(1, min(at_most, memory // (configuration.memory_bytes + CACHE_BYTES)))


def sharers_of_cores(fold: str, at_once: int, processes: int) -> int:
    """Return how many trainings share the cores of this machine, each with its own worker processes.

    Args:
        fold: `all`, the name of one fold, or `full`.
        at_once: Folds that may be trained side by side.
        processes: Processes of torchrun on this machine, which train one fold together.
    """
    return max(processes, min(at_once, FOLDS) if fold == ALL else 1)


def comparable(location: DatasetLocation, folds: Sequence[Fold]) -> tuple[str, ...]:
    """Return the names of the models that were validated in every fold: those that `compare` takes."""
    wanted = {case for fold in folds for case in fold.validation}
    return tuple(folder.name for folder in location.models.folders if wanted <= _validated(folder))


def _validated(folder: Path) -> set[str]:
    """Return the names of the cases that a model was validated on."""
    try:
        return {case for cases in read_cross_validation(folder).folds.values() for case in cases}
    except FormatError:  # absent, or damaged: `compare` says it
        return set()


def _workers_for(cases: int) -> int:
    """Return the worker processes that pay: to start one takes as long as several small cases."""
    return 1 if cases < 16 else default_workers()
