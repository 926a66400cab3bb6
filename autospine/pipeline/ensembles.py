"""Several models as one: their folder beside them, their held-out predictions, their cleanup."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import nn

from autospine.dataset import Dataset, case_modality
from autospine.errors import AutospineError, FormatError, ModelError
from autospine.evaluation import Evaluation
from autospine.images import read_volume, write_labels
from autospine.inference import (
    FINDER,
    FINDER_STEP,
    WEIGHTS,
    JointPredictor,
    ModelFolder,
    Predictor,
    open_model,
    weights_digest,
    with_mirrored,
)
from autospine.locks import alone
from autospine.log import get_logger, track
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

FINDERS = ("lowres", "fast")
"""Configurations whose model, where it has been trained beside a finer one that predicts, finds the spine."""

FINER = 3.0
"""A model is worth looking for the spine first if so many of its own voxels lie in one of the finder's."""

TRUSTED_DICE = 0.5
"""Cross-validated mean Dice from which on a model finds the spine; `lowres` needs none to be known."""

ENSEMBLES = "ensembles"
MEMBERS = "members.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """`members.json`: whose predictions lie in an ensemble's folder."""

    format_version: int
    weights: dict[str, dict[str, str]]
    """Digest of the weights of each fold of each model."""


def joint_predictor(
    models: Sequence[ModelFolder],
    device: torch.device,
    folds: Sequence[str] | None = None,
    *,
    confined: bool = True,
    find_spine: bool = True,
    mirrored: bool = False,
) -> Predictor | JointPredictor:
    """What predicts with a model, or with several together.

    Args:
        models: at least one.
        device: where the networks run.
        folds: of every model; by default its complete ones.
        confined: whether tiles without body, or far from the spine, are left out.
        find_spine: whether a coarse model may say where the spine is.
        mirrored: whether each network sees each tile with left and right exchanged, too.

    Raises:
        ModelError: if a fold is missing, the models' labels or channels differ, or one was trained without
            mirroring and is to predict with it.
    """
    predictors = [
        Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=_views(model, folds, mirrored=mirrored),
            device=device,
            confined=confined,
            finder=_finder(model, device) if confined and find_spine else None,
        )
        for model in models
    ]
    return predictors[0] if len(predictors) == 1 else JointPredictor(predictors=predictors)


def _views(model: ModelFolder, folds: Sequence[str] | None, *, mirrored: bool) -> Sequence[nn.Module]:
    networks = model.networks(folds)
    if not mirrored:
        return networks
    return with_mirrored(networks, model.plan.labels, model.configuration.augmentation)


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


def find_finder(model: ModelFolder) -> ModelFolder | None:
    """The coarse model that finds the spine for this one, if there is one for the same channels.

    A model that has travelled has it inside, others have it beside them.
    """
    beside = [model.path.parent / name for name in FINDERS]
    for folder in (model.path / FINDER, *(folder for folder in beside if _is_trusted(folder))):
        if not any(folder.glob(f"fold_*/{WEIGHTS}")):
            continue
        try:
            coarse = open_model(folder)
        except AutospineError as error:  # Nobody has asked for this model.
            logger.warning("%s does not look for the spine: %s", folder, error)
            continue
        same = coarse.plan.channels == model.plan.channels
        if same and prod(coarse.configuration.spacing_mm) >= FINER * prod(model.configuration.spacing_mm):
            return coarse
    return None


def _finder(model: ModelFolder, device: torch.device) -> Predictor | None:
    coarse = find_finder(model)
    if coarse is None:
        return None
    logger.info("%s looks for the spine first; --no-roi leaves that out", coarse.configuration.name)
    return Predictor(
        plan=coarse.plan,
        configuration=coarse.configuration,
        networks=coarse.networks(coarse.ensemble[:1]),
        device=device,
        step=FINDER_STEP,
    )


def _is_trusted(folder: Path) -> bool:
    """Whether cross-validation says so; of `lowres`, which is there for this, where there is any."""
    try:
        dice = read_cross_validation(folder).dice
    except FormatError:
        dice = None
    return folder.name == FINDERS[0] if dice is None else dice >= TRUSTED_DICE
