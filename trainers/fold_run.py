"""The run of one fold, from its stored cases to its validation."""

import time
from contextlib import nullcontext

from torch import nn

from autospine.core.errors import FormatError, TrainingError
from autospine.dataset.splits import Fold
from autospine.inference.ensemble import timed_convolutions
from autospine.models.model_folder import open_model
from autospine.storage.atomic import remove_leftovers
from autospine.storage.locks import heartbeat_lock
from autospine.storage.trained_models import WEIGHTS
from autospine.system.allocation import as_in_prediction
from autospine.system.devices import computing
from autospine.system.log import get_logger
from trainers import distributed
from trainers.fold_trainer import FoldTrainer, prepare_fold
from trainers.fold_validation import fold_predictor, predict_held_out, time_budget
from trainers.randomness import deterministic
from trainers.run_identity import damaged
from trainers.schedule import no_time_left
from trainers.settings import TrainingSettings
from trainers.time_budget import FoldTime, TimeBudget
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

TRAINING_LOCK = "training.lock"
"""File that names the process that trains the fold now."""

TOLD_SECONDS = 10.0
"""Warn if validation will exceed the time limit by this much."""


def train_and_validate(
    task: TrainingRun, fold: Fold, settings: TrainingSettings, limit: FoldTime | None
) -> float | None:
    """Train a fold, unless it is trained already, and predict its held-out cases.

    Args:
        task: The training run that the fold belongs to.
        fold: The fold.
        settings: The user's choices.
        limit: Time limit for all of it; None for as long as the planned epochs take.

    Returns:
        With a time limit, how much longer than estimated the validation took, as a multiple of the estimate;
        None if it was not measured.

    Raises:
        TrainingError: If another process trains the fold, its finished weights are damaged, its checkpoint
            does not fit, or the training diverges.
        NoTimeLeftError: If the time limit leaves too few seconds to train it.
    """
    folder = task.fold_folder(fold)
    lock = (
        heartbeat_lock(folder / TRAINING_LOCK, f"one training of {folder}", TrainingError)
        if distributed.leads()
        else nullcontext()
    )
    algorithms = deterministic() if settings.deterministic else timed_convolutions(settings.device)
    budget = None
    with lock, algorithms, computing():
        if distributed.leads():
            remove_leftovers(folder)
            remove_leftovers(task.validation_folder(fold))
        distributed.meet()
        if (folder / WEIGHTS).is_file() and settings.extend is None:
            network = _finished_network(task, fold, settings)
        else:
            trainer = prepare_fold(
                plan=task.plan,
                configuration=task.configuration,
                cases=task.cases(fold),
                folder=folder,
                name=fold.name,
                settings=settings,
                held_out=task.held_out(fold),
                initial_weights=task.initial_weights,
            )
            if limit is not None:
                budget = _time_budget(task, fold, trainer, limit)
            network = trainer.run(None if budget is None else budget.training_seconds(), budget)
        with as_in_prediction(settings.device):
            predict_held_out(task, fold, fold_predictor(task, network, settings))
        distributed.meet()
    return None if budget is None else budget.measured_slowdown()


def _finished_network(task: TrainingRun, fold: Fold, settings: TrainingSettings) -> nn.Module:
    """Return the network of a fold that is trained already."""
    try:
        return open_model(task.folder).networks([fold.name])[0].to(settings.device)
    except FormatError:
        raise TrainingError(damaged(task.fold_folder(fold) / WEIGHTS)) from None


def _time_budget(task: TrainingRun, fold: Fold, trainer: FoldTrainer, limit: FoldTime) -> TimeBudget:
    """Return the budget of a fold's remaining time; warn if training and validation need more.

    Raises:
        NoTimeLeftError: If no time remains.
    """
    predictor = fold_predictor(task, trainer.learner.network, trainer.settings)
    budget = time_budget(task, fold, predictor, limit)
    now = time.monotonic()
    (late,) = distributed.largest(now >= budget.ends)  # all processes decide alike
    if late:
        raise no_time_left([fold.name])
    training, needed = budget.training_seconds(), budget.validation_seconds
    excess = now + training + needed - budget.ends
    if fold.validation and excess >= TOLD_SECONDS and distributed.leads():
        logger.warning(
            "fold %s: its validation takes about %.0f s of the %.0f s that it has; training gets half of its "
            "fair time, %.0f s, so that the time limit is exceeded by about %.0f s",
            *(fold.name, needed, budget.ends - now, training, excess),
        )
    return budget
