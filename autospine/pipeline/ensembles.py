"""Validation of an ensemble of models: its folder, its held-out predictions and its scores."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from autospine.core.errors import ModelError
from autospine.dataset.raw import Dataset, case_modality
from autospine.evaluation.held_out import (
    SCORING_LOCK,
    HeldOut,
    read_prediction,
    score_held_out,
    validation_folder,
)
from autospine.evaluation.scores import Evaluation
from autospine.io.images import read_volume, write_labels
from autospine.models.model_folder import ModelFolder
from autospine.prediction.build_predictor import build_predictor
from autospine.prediction.model_postprocessing import MEMBERS, ensemble_folder, holds, members_of
from autospine.prediction.vertebra_counter import opened_namers
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.file_names import folder_to_write, path_below
from autospine.storage.locks import waiting_lock
from autospine.storage.serialization import write_json
from autospine.system.log import track


def validate_ensemble(
    models: Sequence[ModelFolder],
    folds: Mapping[str, Sequence[str]],
    dataset: Dataset,
    device: torch.device,
) -> tuple[Path, Evaluation]:
    """Predict every fold's held-out cases with the models' networks of that fold, and score them.

    Earlier predictions of the same networks are kept.

    Args:
        models: Models side by side in one folder, with the same labels and channels.
        folds: Names of the held-out cases of each fold.
        dataset: The raw dataset with images and references.
        device: Device that the networks run on.

    Returns:
        The ensemble's folder with its scores and post-processing, and the scores.

    Raises:
        ModelError: If the models are not in one folder or do not fit together.
    """
    folder = ensemble_folder(models)
    if folder is None:
        places = ", ".join(str(model.path) for model in models)
        raise ModelError(f"expected models in one folder, found {places}; copy them side by side")
    with waiting_lock(folder.parent / SCORING_LOCK, f"validates ensembles in {folder.parent}"):
        folder_to_write(folder.parent.parent, folder.parent.name, folder.name)
        members = members_of(models)
        if not holds(folder, members):
            shutil.rmtree(folder, ignore_errors=True)
            write_json(folder / MEMBERS, members)
        held_out = [
            HeldOut(fold=fold, cases=tuple(cases), folder=validation_folder(folder, fold))
            for fold, cases in folds.items()
        ]
        for fold in held_out:
            _predict_held_out(models, fold, dataset, device)
        labels = models[0].plan.labels
        naming, channels = VertebraNaming.of_labels(labels), len(models[0].plan.channels)
        with opened_namers(naming, dataset.cases, channels, device) as namers:
            return folder, score_held_out(folder, held_out, dataset, labels, *namers)


def _predict_held_out(
    models: Sequence[ModelFolder], fold: HeldOut, dataset: Dataset, device: torch.device
) -> None:
    targets = {name: path_below(fold.folder, f"{name}{models[0].plan.file_ending}") for name in fold.cases}
    cases = [
        case for case in dataset.cases if case.name in targets and read_prediction(targets[case.name]) is None
    ]
    if not cases:
        return
    # The coarse model's network has seen most of these cases.
    predictor = build_predictor(models, device, [fold.fold], use_localizer=False)
    names = " + ".join(model.path.resolve().name for model in models)
    for case in track(cases, f"{names}, fold {fold.fold}"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(targets[case.name], labels, volume.stored)
