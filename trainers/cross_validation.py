"""Training of several folds, each validated on its held-out cases at its end."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from autospine.dataset import Dataset, case_modality
from autospine.errors import TrainingError
from autospine.evaluation import Evaluation, describe, evaluate_folder
from autospine.folds import Fold
from autospine.images import read_volume, write_labels
from autospine.inference import WEIGHTS, Predictor, count_tiles, open_model
from autospine.log import get_logger, track
from autospine.plan import Configuration, Plan
from autospine.preprocessing import StoredCase
from autospine.serialization import read_json, write_json
from trainers.fold import FoldTrainer
from trainers.settings import Settings

logger = get_logger(__name__)

VALIDATION = "validation"
CROSS_VALIDATION = "cross_validation.json"

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


def train_folds(
    task: Task, folds: Sequence[Fold], settings: Settings, *, deadline: float | None = None
) -> Evaluation | None:
    """Train and validate folds one after the other; finished ones are kept, an interrupted one goes on.

    Args:
        task: what is trained.
        folds: in order.
        settings: the user's choices.
        deadline: value of `time.monotonic()` by which everything should be done; what is left is shared
            evenly among the folds that are left, validation included.

    Returns:
        The evaluation over the validation cases of every fold trained so far, None without any.

    Raises:
        TrainingError: if the model folder holds folds of another plan.
    """
    _claim(task)
    todo = [fold for fold in folds if not _complete(task, fold)]
    for fold in folds:
        if fold not in todo:
            logger.info("fold %s is complete already", fold.name)
    for index, fold in enumerate(todo):
        seconds = None if deadline is None else _share(deadline - time.monotonic(), len(todo) - index)
        _train_and_validate(task, fold, settings, seconds)
    return cross_validation(task, folds)


def cross_validation(task: Task, folds: Sequence[Fold]) -> Evaluation | None:
    """Evaluate the validation predictions of the folds that are complete, and write the summary."""
    references = task.dataset.folder / "labelsTr"
    done = [fold for fold in folds if fold.validation and _complete(task, fold)]
    if not done:
        return None
    evaluations = [
        evaluate_folder(
            _fold_folder(task, fold) / VALIDATION, references, task.plan.labels, task.dataset.cases
        )
        for fold in done
    ]
    cases = sorted((case for e in evaluations for case in e.cases), key=lambda case: case.case)
    total = Evaluation(classes=task.plan.labels.names, cases=tuple(cases))
    folder = {fold.name: e.mean_dice for fold, e in zip(done, evaluations, strict=True)}
    summary = {
        **describe(total),
        "folds": {k: None if math.isnan(d) else round(d, 6) for k, d in folder.items()},
    }
    write_json(task.folder / CROSS_VALIDATION, summary)
    return total


def _claim(task: Task) -> None:
    """Make the model folder this plan's; refuse one whose folds were trained by another plan."""
    path = task.folder / "plan.json"
    trained = any(task.folder.glob(f"fold_*/{WEIGHTS}"))
    if trained and path.is_file():
        earlier = read_json(path, Plan).configuration(task.configuration.name)
        if (earlier.network, earlier.spacing_mm) != (
            task.configuration.network,
            task.configuration.spacing_mm,
        ):
            raise TrainingError(
                f"expected folds of the present plan in {task.folder}, found some of an earlier one; "
                "move that folder away to train anew, or restore the earlier plan"
            )
    write_json(path, replace(task.plan, configurations=(task.configuration,)))
    description = (task.dataset.folder / "dataset.json").read_text(encoding="utf-8")
    (task.folder / "dataset.json").write_text(description, encoding="utf-8")


def _complete(task: Task, fold: Fold) -> bool:
    folder = _fold_folder(task, fold)
    predicted = all(_prediction(task, fold, name).is_file() for name in fold.validation)
    return (folder / WEIGHTS).is_file() and predicted


def _share(left: float, folds: int) -> float:
    if left <= 0:
        raise TrainingError(
            f"expected time for {folds} more folds, found none left; "
            "run the same command again: complete folds are kept"
        )
    return left * (1 - SPARE) / folds


def _train_and_validate(task: Task, fold: Fold, settings: Settings, seconds: float | None) -> None:
    folder = _fold_folder(task, fold)
    if (folder / WEIGHTS).is_file():
        network = next(iter(open_model(task.folder).networks([fold.name]))).to(settings.device)
    else:
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
            seconds = max(seconds - needed, 0.5 * seconds)
        network = trainer.run(seconds)
    _validate(task, fold, network, settings.device)


def _validate(task: Task, fold: Fold, network: nn.Module, device: torch.device) -> None:
    """Predict the held-out cases on their own grids."""
    predictor = Predictor(plan=task.plan, configuration=task.configuration, networks=[network], device=device)
    cases = [case for case in task.dataset.cases if case.name in fold.validation]
    for case in track(cases, f"fold {fold.name}, validation"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(_prediction(task, fold, case.name), labels, volume.stored)


def _validation_seconds(task: Task, fold: Fold, network: nn.Module, device: torch.device) -> float:
    """How long validation will take, from the time of one tile."""
    patch = task.configuration.patch_size
    image = torch.zeros((1, len(task.plan.channels), *patch), device=device)
    network.eval()
    bfloat16 = task.configuration.training.precision == "bfloat16"
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        network(image)
        began = time.monotonic()
        network(image)
        float(network(image).sum())
    per_tile = (time.monotonic() - began) / 2
    tiles = [count_tiles(task.stored[name].shape, patch) for name in fold.validation]
    return per_tile * sum(tiles) + SECONDS_PER_CASE * len(fold.validation)


def _fold_folder(task: Task, fold: Fold) -> Path:
    return task.folder / f"fold_{fold.name}"


def _prediction(task: Task, fold: Fold, case: str) -> Path:
    return _fold_folder(task, fold) / VALIDATION / f"{case}{task.plan.file_ending}"
