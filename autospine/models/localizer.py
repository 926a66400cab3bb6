"""The localizer: a coarse model that locates the spine for a finer one."""

from math import prod
from pathlib import Path

from autospine.core.errors import AutospineError, FormatError
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.models.model_folder import LOCALIZER, ModelFolder, open_model
from autospine.storage.trained_models import fold_weights
from autospine.system.log import get_logger

logger = get_logger(__name__)

LOCALIZERS = ("lowres", "fast")
"""Configurations whose model may be the localizer of a finer one that was trained beside it."""

FINER = 3.0
"""A localizer is worth running if one of its voxels holds at least so many of the model's."""

TRUSTED_DICE = 0.5
"""Cross-validated mean Dice from which a model is trusted to locate the spine. A `lowres` model, which is
trained for this, is trusted without a cross-validation, too."""


def find_localizer(model: ModelFolder) -> ModelFolder | None:
    """Return the localizer of a model, if there is one for the same channels.

    An exported model has it inside its folder, others have it beside them.
    """
    beside = [model.path.parent / name for name in LOCALIZERS]
    for folder in (model.path / LOCALIZER, *(folder for folder in beside if _is_trusted(folder))):
        if not fold_weights(folder):
            continue
        try:
            coarse = open_model(folder)
        except AutospineError as error:  # nobody has asked for this model, so that it must not stop the work
            logger.warning("%s cannot locate the spine: %s", folder, error)
            continue
        same = coarse.plan.channels == model.plan.channels
        if same and prod(coarse.configuration.spacing_mm) >= FINER * prod(model.configuration.spacing_mm):
            return coarse
    return None


def _is_trusted(folder: Path) -> bool:
    """Return whether cross-validation trusts a model to locate the spine."""
    try:
        dice = read_cross_validation(folder).dice
    except FormatError:
        dice = None
    return folder.name == LOCALIZERS[0] if dice is None else dice >= TRUSTED_DICE
