"""One fold, from its cases to its validation."""

import time
from contextlib import nullcontext

from torch import nn

from autospine.core.errors import FormatError, TrainingError
from autospine.dataset.raw import case_modality
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import VALIDATION
from autospine.inference.ensemble import ready_networks
from autospine.inference.predictor import Predictor
from autospine.inference.tiles import count_tiles
from autospine.io.images import read_volume, write_labels
from autospine.models.model_folder import open_model
from autospine.storage.atomic import remove_leftovers
from autospine.storage.locks import heartbeat_lock
from autospine.storage.trained_models import WEIGHTS
from autospine.system.allocation import as_in_prediction
from autospine.system.log import track
from trainers import distributed
from trainers.fold_trainer import FoldTrainer
from trainers.randomness import deterministic
from trainers.run_identity import damaged
from trainers.settings import TrainingSettings
from trainers.training_run import TrainingRun

TRAINING_LOCK = "training.lock"
"""Names the process that trains the fold now."""

SECONDS_PER_CASE = 1.0
"""Reading, resampling and writing a validation case of ordinary size."""


def train_and_validate(
    task: TrainingRun, fold: Fold, settings: TrainingSettings, seconds: float | None
) -> None:
    """Train a fold, unless it is trained already, and predict its held-out cases.

    Args:
        task: what is trained.
        fold: which part of it.
        settings: the user's choices.
        seconds: for all of it; None for as long as the planned epochs take.
    """
    folder = task.fold_folder(fold)
    lock = (
        heartbeat_lock(folder / TRAINING_LOCK, f"one training of {folder}", TrainingError)
        if distributed.leads()
        else nullcontext()
    )
    with lock, deterministic(settings.deterministic):
        if distributed.leads():
            remove_leftovers(folder)
            remove_leftovers(folder / VALIDATION)
        distributed.meet()
        network = _trained(task, fold, settings, seconds)
        with as_in_prediction(settings.device):
            _validate(task, fold, _predictor(task, network, settings))
        distributed.meet()


def _trained(task: TrainingRun, fold: Fold, settings: TrainingSettings, seconds: float | None) -> nn.Module:
    """The fold's network, from its folder or by training."""
    folder = task.fold_folder(fold)
    if (folder / WEIGHTS).is_file() and settings.extend is None:
        try:
            return open_model(task.folder).networks([fold.name])[0].to(settings.device)
        except FormatError:
            raise TrainingError(damaged(folder / WEIGHTS)) from None
    began = time.monotonic()
    trainer = FoldTrainer(
        plan=task.plan,
        configuration=task.configuration,
        cases=task.cases(fold),
        folder=folder,
        name=fold.name,
        settings=settings,
        initial_weights=task.initial_weights,
    )
    if seconds is not None:
        needed = _validation_seconds(task, fold, _predictor(task, trainer.learner.network, settings))
        left = seconds - (time.monotonic() - began)
        seconds = max(left - needed, 0.5 * left)
    return trainer.run(seconds)


def _validate(task: TrainingRun, fold: Fold, predictor: Predictor) -> None:
    """Predict the held-out cases on their own grids; processes that train together share them."""
    held_out = [case for case in task.dataset.cases if case.name in fold.validation]
    # Predictions that are there are sound, and of these weights: finished training removes those of others.
    cases = [
        case
        for case in held_out[distributed.rank() :: distributed.size()]
        if not task.prediction(fold, case.name).is_file()
    ]
    for case in track(cases, f"fold {fold.name}, validation"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(task.prediction(fold, case.name), labels, volume.stored)


def _validation_seconds(task: TrainingRun, fold: Fold, predictor: Predictor) -> float:
    """How long validation will take, from the time of one tile."""
    patch = task.configuration.patch_size
    tiles = sum(count_tiles(task.stored[name].shape, patch) for name in fold.validation)
    seconds = predictor.seconds_per_tile * tiles + SECONDS_PER_CASE * len(fold.validation)
    return seconds / distributed.size()


def _predictor(task: TrainingRun, network: nn.Module, settings: TrainingSettings) -> Predictor:
    return Predictor(
        plan=task.plan,
        configuration=task.configuration,
        networks=ready_networks([network], settings.device),
        device=settings.device,
    )
