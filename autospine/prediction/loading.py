"""What predicts with a model or with several, and the coarse model that finds the spine for each."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import nn

from autospine.core.errors import AutospineError, FormatError, ModelError
from autospine.evaluation.held_out import read_cross_validation
from autospine.inference.ensemble import ready_networks
from autospine.inference.mirror import with_mirror
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor
from autospine.inference.tiles import LOCALIZER_STEP_SIZE
from autospine.models.model_folder import FINDER, ModelFolder, open_model
from autospine.storage.trained_models import fold_weights
from autospine.system.log import get_logger

logger = get_logger(__name__)

FINDERS = ("lowres", "fast")
"""Configurations whose model, where it has been trained beside a finer one that predicts, finds the spine."""

FINER = 3.0
"""A model is worth looking for the spine first if so many of its own voxels lie in one of the finder's."""

TRUSTED_DICE = 0.5
"""Cross-validated mean Dice from which on a model finds the spine; `lowres` needs none to be known."""


def joint_predictor(
    models: Sequence[ModelFolder],
    device: torch.device,
    folds: Sequence[str] | None = None,
    *,
    region_of_interest: bool = True,
    use_localizer: bool = True,
    mirror: bool = False,
) -> Predictor | JointPredictor:
    """What predicts with a model, or with several together.

    Args:
        models: at least one.
        device: where the networks run.
        folds: of every model; by default its complete ones.
        region_of_interest: whether tiles without body, or far from the spine, are left out.
        use_localizer: whether a coarse model may locate the spine.
        mirror: whether each network sees each tile with left and right exchanged, too.

    Raises:
        ModelError: if a fold is missing, the models' labels or channels differ, or one was trained without
            mirroring and is to predict with it.
    """
    predictors = [
        Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=ready_networks(_views(model, folds, mirror=mirror), device),
            device=device,
            region_of_interest=region_of_interest,
            localizer=_localizer(model, device) if region_of_interest and use_localizer else None,
        )
        for model in models
    ]
    return predictors[0] if len(predictors) == 1 else JointPredictor(predictors=predictors)


def check_different(models: Sequence[ModelFolder], folds: Sequence[str] | None = None) -> None:
    """Refuse to let the same networks predict together with themselves.

    Args:
        models: at least one.
        folds: of every model; by default its complete ones.

    Raises:
        ModelError: if a fold is missing, or two models have the same weights.
    """
    if len(models) == 1:  # nothing to compare, so that its weights need not be read
        models[0].weights(folds)
        return
    seen: dict[str, ModelFolder] = {}
    for model in models:
        same = seen.setdefault(model.digest(folds), model)
        if same is not model:
            raise ModelError(
                f"expected different models to predict together, found the same weights in {same.name} and "
                f"{model.name}; leave one out"
            )


def _views(model: ModelFolder, folds: Sequence[str] | None, *, mirror: bool) -> Sequence[nn.Module]:
    networks = model.networks(folds)
    if not mirror:
        return networks
    return with_mirror(networks, model.plan.labels, model.configuration.augmentation)


def find_localizer(model: ModelFolder) -> ModelFolder | None:
    """The coarse model that finds the spine for this one, if there is one for the same channels.

    A model that has travelled has it inside, others have it beside them.
    """
    beside = [model.path.parent / name for name in FINDERS]
    for folder in (model.path / FINDER, *(folder for folder in beside if _is_trusted(folder))):
        if not fold_weights(folder):
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


def _localizer(model: ModelFolder, device: torch.device) -> Predictor | None:
    coarse = find_localizer(model)
    if coarse is None:
        return None
    logger.info("%s looks for the spine first; --no-roi leaves that out", coarse.configuration.name)
    return Predictor(
        plan=coarse.plan,
        configuration=coarse.configuration,
        networks=ready_networks(coarse.networks(coarse.ensemble[:1]), device),
        device=device,
        step_size=LOCALIZER_STEP_SIZE,
    )


def _is_trusted(folder: Path) -> bool:
    """Whether cross-validation says so; of `lowres`, which is there for this, where there is any."""
    try:
        dice = read_cross_validation(folder).dice
    except FormatError:
        dice = None
    return folder.name == FINDERS[0] if dice is None else dice >= TRUSTED_DICE
