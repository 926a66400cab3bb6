"""Prediction of a fold's held-out cases with the fold's network."""

from dataclasses import replace

import torch
from torch import nn

from autospine.dataset.raw import case_modality
from autospine.dataset.splits import Fold
from autospine.inference.ensemble import ready_networks
from autospine.inference.predictor import Predictor
from autospine.inference.tiles import count_tiles
from autospine.io.images import read_volume, write_labels
from autospine.system.log import track
from trainers import distributed
from trainers.epoch_validation import FEWEST_TILES
from trainers.learner import amp_dtype
from trainers.settings import TrainingSettings
from trainers.training_run import TrainingRun

SECONDS_PER_CASE = 1.0
"""Time for reading, resampling and writing a validation case of ordinary size."""

FINISHING_SECONDS = 4.0
"""Time between the last step of a training and its validation, without the network's: the checkpoint and the
weights are written, and the curves drawn."""


def fold_predictor(task: TrainingRun, network: nn.Module, settings: TrainingSettings) -> Predictor:
    """Return a predictor with the network of one fold."""
    configuration = task.configuration
    if amp_dtype(configuration.training.precision, settings.device) == torch.float16:  # whatever is planned
        configuration = replace(configuration, training=replace(configuration.training, precision="float16"))
    return Predictor(
        plan=task.plan,
        configuration=configuration,
        networks=ready_networks([network], settings.device),
        device=settings.device,
    )


def predict_held_out(task: TrainingRun, fold: Fold, predictor: Predictor) -> None:
    """Predict the held-out cases on their own grids; processes that train together share them."""
    held_out = [case for case in task.dataset.cases if case.name in fold.validation]
    # Existing predictions are complete and belong to these weights: those of others were removed when the
    # training finished.
    cases = [
        case
        for case in held_out[distributed.rank() :: distributed.size()]
        if not task.prediction(fold, case.name).is_file()
    ]
    for case in track(cases, f"fold {fold.name}, validation"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(task.prediction(fold, case.name), labels, volume.stored)


def validation_seconds(task: TrainingRun, fold: Fold, predictor: Predictor) -> float:
    """Estimate how long validation will take, from the measured time of one tile."""
    patch = task.configuration.patch_size
    tiles = sum(count_tiles(task.stored[name].shape, patch) for name in fold.validation)
    seconds = predictor.seconds_per_tile * tiles + SECONDS_PER_CASE * len(fold.validation)
    return seconds / distributed.size()


def finishing_seconds(task: TrainingRun, fold: Fold, predictor: Predictor) -> float:
    """Estimate how long it takes from the last step to the validation, with the held-out tiles of the epoch.

    The first epoch, which is the last one of a short training, predicts `FEWEST_TILES`.
    """
    patch = task.configuration.patch_size
    tiles = min(FEWEST_TILES, sum(count_tiles(task.stored[name].shape, patch) for name in fold.validation))
    return FINISHING_SECONDS + predictor.seconds_per_tile * tiles / distributed.size()
