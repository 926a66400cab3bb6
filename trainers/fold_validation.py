"""Prediction of a fold's held-out cases with the fold's network."""

import time
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
from trainers.time_budget import LEAST_SHARE, FoldTime, TimeBudget
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


def time_budget(task: TrainingRun, fold: Fold, predictor: Predictor, limit: FoldTime) -> TimeBudget:
    """Divide the time of a fold between its training and what comes after the last step.

    That are the held-out tiles of the last epoch (`FEWEST_TILES` if it is the first one, as in a short
    training), the writing of the weights, and the validation.

    Args:
        task: Training run of the fold.
        fold: The fold.
        predictor: Predictor with the fold's network, which times a tile.
        limit: The fold's time.
    """
    patch = task.configuration.patch_size
    tiles = sum(count_tiles(task.stored[name].shape, patch) for name in fold.validation)
    seconds_per_tile = predictor.seconds_per_tile  # measured now
    return TimeBudget(
        ends=limit.ends,
        least_end=time.monotonic() + LEAST_SHARE * limit.fair_seconds,
        tiles=(tiles + min(FEWEST_TILES, tiles)) / distributed.size(),
        seconds_per_tile=seconds_per_tile,
        fixed_seconds=FINISHING_SECONDS + SECONDS_PER_CASE * len(fold.validation) / distributed.size(),
        slowdown=limit.slowdown,
    )
