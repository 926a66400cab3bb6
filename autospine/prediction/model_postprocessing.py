"""Post-processing that cross-validation has chosen for a model, or for several models together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import FormatError
from autospine.evaluation.postprocessing import Postprocessing, read_postprocessing
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.models.model_folder import ModelFolder, weights_digest
from autospine.storage.serialization import read_json, stored_as
from autospine.storage.trained_models import ENSEMBLES, WEIGHTS, fold_folder
from autospine.system.log import get_logger

logger = get_logger(__name__)

MEMBERS = "members.json"
FORMAT_VERSION = 1


@stored_as("the members of an ensemble", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """`members.json`: the models whose predictions lie in an ensemble's folder."""

    format_version: int
    weights: dict[str, dict[str, str]]
    """Digests of the weights by model and fold."""


def warn_of_other_weights(models: Sequence[ModelFolder]) -> None:
    """Warn if a model was cross-validated with different weights than it has now."""
    for model in models:
        try:
            scored = read_cross_validation(model.path).weights
        except FormatError:  # it has no scores, or those of an exported model
            continue
        changed = [
            fold_folder(model.path, fold).name
            for fold in model.ensemble
            if scored.get(fold) and scored[fold] != weights_digest(fold_folder(model.path, fold) / WEIGHTS)
        ]
        if changed:
            logger.warning(
                "the cross-validation of %s is of other weights than %s has now: run `autospine train %s "
                "--fold all` again, and delete its validation/ before where weights were copied there",
                model.path,
                " and ".join(changed),
                model.path.resolve().name,
            )


def find_post_processing(models: Sequence[ModelFolder]) -> Postprocessing | None:
    """Return the post-processing that cross-validation has chosen for a model, or for models together."""
    if len(models) == 1:
        return read_postprocessing(models[0].path)
    folder = ensemble_folder(models)
    if folder is None or not holds(folder, members_of(models)):
        logger.info(
            "label maps are not post-processed, as these models were not compared together as they are now; "
            "run `autospine compare` to do so"
        )
        return None
    return read_postprocessing(folder)


def ensemble_folder(models: Sequence[ModelFolder]) -> Path | None:
    """Return the folder `ensembles/A+B` beside the models; None if they do not lie side by side."""
    places = [model.path.resolve() for model in models]
    if len({place.parent for place in places}) > 1:
        return None
    return models[0].path.parent / ENSEMBLES / "+".join(sorted(place.name for place in places))


def members_of(models: Sequence[ModelFolder]) -> Members:
    """Return what `members.json` is to hold for these models as they are now."""
    return Members(
        format_version=FORMAT_VERSION,
        weights={
            model.path.resolve().name: {
                fold: weights_digest(fold_folder(model.path, fold) / WEIGHTS) for fold in model.ensemble
            }
            for model in sorted(models, key=lambda model: model.path.resolve().name)
        },
    )


def holds(folder: Path, members: Members) -> bool:
    """Return whether an ensemble's folder holds the predictions of these models."""
    try:
        return read_json(folder / MEMBERS, Members) == members
    except FormatError:  # absent or damaged
        return False
