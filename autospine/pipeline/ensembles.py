"""Models compared as one: their folder beside them, their held-out predictions, their cleanup."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autospine.dataset import Dataset, case_modality
from autospine.errors import FormatError, ModelError
from autospine.evaluation import Evaluation
from autospine.images import read_volume, write_labels
from autospine.inference import WEIGHTS, ModelFolder, weights_digest
from autospine.locks import alone
from autospine.log import get_logger, track
from autospine.pipeline.predictors import joint_predictor
from autospine.postprocessing import Postprocessing, read_postprocessing
from autospine.serialization import read_json, write_json
from autospine.validation import (
    SCORING_LOCK,
    VALIDATION,
    HeldOut,
    read_cross_validation,
    read_prediction,
    score_held_out,
)

logger = get_logger(__name__)

ENSEMBLES = "ensembles"
MEMBERS = "members.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """`members.json`: whose predictions lie in an ensemble's folder."""

    format_version: int
    weights: dict[str, dict[str, str]]
    """Digest of the weights of each fold of each model."""


def warn_of_other_weights(models: Sequence[ModelFolder]) -> None:
    """Say where the scores and the cleanup of a model are of other weights than it has now."""
    for model in models:
        try:
            scored = read_cross_validation(model.path).weights
        except FormatError:  # without scores, or with those of a model that has travelled
            continue
        others = [
            f"fold_{fold}"
            for fold in model.ensemble
            if scored.get(fold) and scored[fold] != weights_digest(model.path / f"fold_{fold}" / WEIGHTS)
        ]
        if others:
            logger.warning(
                "the cross-validation of %s is of other weights than %s has now: run `autospine train %s "
                "--fold all` again, and delete its validation/ before where weights were copied there",
                model.path,
                " and ".join(others),
                model.path.resolve().name,
            )


def find_cleanup(models: Sequence[ModelFolder]) -> Postprocessing | None:
    """The cleanup that cross-validation chose for a model, or for these models together."""
    if len(models) == 1:
        return read_postprocessing(models[0].path)
    folder = ensemble_folder(models)
    if folder is None or not _holds(folder, _members(models)):
        logger.info(
            "label maps are not cleaned: these models were not compared together as they are now; "
            "`autospine compare` does it"
        )
        return None
    return read_postprocessing(folder)


def ensemble_folder(models: Sequence[ModelFolder]) -> Path | None:
    """`ensembles/A+B` beside the models; None if they do not lie side by side."""
    places = [model.path.resolve() for model in models]
    if len({place.parent for place in places}) > 1:
        return None
    return models[0].path.parent / ENSEMBLES / "+".join(sorted(place.name for place in places))


def validate_ensemble(
    models: Sequence[ModelFolder],
    folds: Mapping[str, Sequence[str]],
    dataset: Dataset,
    device: torch.device,
) -> tuple[Path, Evaluation]:
    """Predict every fold's held-out cases with the models' networks of that fold, and score them.

    What was predicted before by the same networks is kept.

    Args:
        models: side by side in one folder, of the same labels and channels.
        folds: held-out cases of each fold.
        dataset: has images and references.
        device: where the networks run.

    Returns:
        The ensemble's folder, with its scores and its cleanup, and the scores.

    Raises:
        ModelError: if the models do not fit together.
    """
    folder = ensemble_folder(models)
    if folder is None:
        places = ", ".join(str(model.path) for model in models)
        raise ModelError(f"expected models in one folder, found {places}; copy them side by side")
    with alone(folder.parent / SCORING_LOCK, f"validates ensembles in {folder.parent}"):
        members = _members(models)
        if not _holds(folder, members):
            shutil.rmtree(folder, ignore_errors=True)
            write_json(folder / MEMBERS, members)
        held_out = [
            HeldOut(fold=fold, cases=tuple(cases), folder=folder / f"fold_{fold}" / VALIDATION)
            for fold, cases in folds.items()
        ]
        for fold in held_out:
            _predict_held_out(models, fold, dataset, device)
        return folder, score_held_out(folder, held_out, dataset, models[0].plan.labels)


def _predict_held_out(
    models: Sequence[ModelFolder], fold: HeldOut, dataset: Dataset, device: torch.device
) -> None:
    targets = {name: fold.folder / f"{name}{models[0].plan.file_ending}" for name in fold.cases}
    cases = [
        case for case in dataset.cases if case.name in targets and read_prediction(targets[case.name]) is None
    ]
    if not cases:
        return
    # The coarse model's network has seen most of these cases.
    predictor = joint_predictor(models, device, [fold.fold], find_spine=False)
    names = " + ".join(model.path.resolve().name for model in models)
    for case in track(cases, f"{names}, fold {fold.fold}"):
        volume = read_volume(case.images)
        labels = predictor.predict(volume, case_modality(case, volume), case.name)
        write_labels(targets[case.name], labels, volume.stored)


def _members(models: Sequence[ModelFolder]) -> Members:
    return Members(
        format_version=FORMAT_VERSION,
        weights={
            model.path.resolve().name: {
                fold: weights_digest(model.path / f"fold_{fold}" / WEIGHTS) for fold in model.ensemble
            }
            for model in sorted(models, key=lambda model: model.path.resolve().name)
        },
    )


def _holds(folder: Path, members: Members) -> bool:
    try:
        return read_json(folder / MEMBERS, Members) == members
    except FormatError:  # absent or damaged
        return False
