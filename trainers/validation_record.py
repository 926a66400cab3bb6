"""Held-out predictions that are there already: which of them still count."""

from dataclasses import dataclass

import numpy as np

from autospine.core.errors import FormatError
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import read_prediction
from autospine.storage.serialization import read_json, write_json
from autospine.system.log import get_logger
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

IMAGES = "validation.json"
FORMAT_VERSION = 1

SPACING_TOLERANCE = 1e-3
"""Share by which voxel sizes may differ: headers round them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedImages:
    """`validation.json`: of which images the predictions in a fold's `validation/` are."""

    format_version: int
    contents: dict[str, str]
    """Digest of each held-out case, as of `CaseRecord.content`."""


def remove_outdated(task: TrainingRun, fold: Fold) -> None:
    """Remove a fold's predictions that are damaged or of images that have changed since.

    Which images they are of is written down before the next one is made, so that it holds for all that are
    there. Predictions of which it is not known count.
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
    """What was written down, nothing where there is none or it is damaged."""
    try:
        return read_json(task.fold_folder(fold) / IMAGES, PredictedImages).contents
    except FormatError:
        return {}


def _fault(task: TrainingRun, fold: Fold, name: str, content: str) -> str | None:
    """Why a prediction of an image of this content does not count."""
    record = task.stored[name].record
    if content != record.content:
        return "of an image that has changed since"
    volume = read_prediction(task.prediction(fold, name))
    if volume is None:
        return "damaged"
    alike = np.allclose(volume.grid.spacing_mm, record.source_spacing_mm, rtol=SPACING_TOLERANCE, atol=0)
    return None if alike and volume.grid.shape == record.source_shape else "not on the grid of its image"
