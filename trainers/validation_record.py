"""Record of the images that held-out predictions were made from, which tells the outdated ones."""

from dataclasses import dataclass

import numpy as np

from autospine.core.errors import FormatError
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import read_prediction
from autospine.storage.serialization import read_json, stored_as, write_json
from autospine.system.log import get_logger
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

IMAGES = "validation.json"
FORMAT_VERSION = 1

SPACING_TOLERANCE = 1e-3
"""Largest relative difference between two voxel sizes that count as equal, because headers round them."""


@stored_as("the record of validated images")
@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedImages:
    """Contents of `validation.json`: the images from which a fold's `validation/` was predicted."""

    format_version: int
    contents: dict[str, str]
    """Digest of each held-out case by name (`CaseRecord.content`)."""


def remove_outdated(task: TrainingRun, fold: Fold) -> None:
    """Remove a fold's predictions that are damaged or whose images have changed since.

    The digests of the images are written before the next prediction is made, so that they hold for all
    predictions in the folder. A prediction whose image is not recorded is kept.

    Args:
        task: Training run of the fold.
        fold: Fold whose predictions are checked.
    """
    now = {name: task.stored[name].record.content for name in fold.validation}
    then = _known_images(task, fold)
    for name in fold.validation:
        path = task.prediction(fold, name)
        if path.is_file() and (fault := _fault(task, fold, name, then.get(name, now[name]))):
            logger.warning(
                "%s is %s and is removed; training fold %s again makes a new one", path, fault, fold.name
            )
            path.unlink()
    if then != now:
        images = PredictedImages(format_version=FORMAT_VERSION, contents=now)
        write_json(task.fold_folder(fold) / IMAGES, images)


def _known_images(task: TrainingRun, fold: Fold) -> dict[str, str]:
    """Read the recorded digests by case; there are none if the file is missing or damaged."""
    try:
        return read_json(task.fold_folder(fold) / IMAGES, PredictedImages).contents
    except FormatError:
        return {}


def _fault(task: TrainingRun, fold: Fold, name: str, content: str) -> str | None:
    """Say why a prediction of an image with this digest is outdated; None if it is not."""
    record = task.stored[name].record
    if content != record.content:
        return "of an image that has changed since"
    volume = read_prediction(task.prediction(fold, name))
    if volume is None:
        return "damaged"
    alike = np.allclose(volume.grid.spacing_mm, record.source_spacing_mm, rtol=SPACING_TOLERANCE, atol=0)
    return None if alike and volume.grid.shape == record.source_shape else "not on the grid of its image"
