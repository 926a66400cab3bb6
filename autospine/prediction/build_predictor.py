"""Predictors of one trained model or of several, with their localizers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import get_args

import torch
from torch import nn

from autospine.core.errors import AutospineError, FormatError, ModelError
from autospine.core.types import Modality
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.inference.ensemble import ready_networks, with_mirror
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor
from autospine.inference.tiles import LOCALIZER_STEP_SIZE
from autospine.models.archive import opened_model
from autospine.models.manifest import short_training, training_of
from autospine.models.model_folder import ModelFolder, find_localizer, starter_locates
from autospine.storage.trained_models import (
    FOLDS,
    STARTER,
    STARTER_FILE,
    describe_unfinished,
    unfinished_folds,
)
from autospine.system.devices import inference_half
from autospine.system.log import get_logger

logger = get_logger(__name__)

FOUND_TOGETHER = ("vertebra", "canal")
"""Classes that the starter finds at every height of a spine, where it finds one at all."""

NOTHING_FOUND = "no spine was found: the label map is all background"
"""Said of an image in which the networks find nothing."""


def build_predictor(
    models: Sequence[ModelFolder],
    device: torch.device,
    folds: Sequence[str] | None = None,
    *,
    region_of_interest: bool = True,
    use_localizer: bool = True,
    mirror: bool = False,
) -> Predictor | JointPredictor:
    """Load the networks of one model, or of several that predict together.

    Args:
        models: At least one model.
        device: Device that the networks run on.
        folds: Names of the folds of every model; by default its complete ones.
        region_of_interest: Whether tiles are skipped that hold none of the body, or lie away from the spine.
        use_localizer: Whether a coarse model may locate the spine.
        mirror: Whether each tile is also run with left and right exchanged.

    Raises:
        ModelError: If a fold is missing, the models' labels or channels differ, or one was trained without
            mirroring and is to predict with it.
    """
    predictors = []
    for model in models:
        configuration = model.trained_configuration(folds)
        half = inference_half(configuration.training.precision, device)
        localizer, together = (
            _localizer(model, device) if region_of_interest and use_localizer else (None, ())
        )
        predictors.append(
            Predictor(
                plan=model.plan,
                configuration=configuration,
                networks=ready_networks(_networks(model, folds, mirror=mirror), device, half),
                device=device,
                region_of_interest=region_of_interest,
                localizer=localizer,
                found_together=together,
            )
        )
    return predictors[0] if len(predictors) == 1 else JointPredictor(predictors=predictors)


def check_distinct(models: Sequence[ModelFolder], folds: Sequence[str] | None = None) -> None:
    """Refuse models that share their networks, which would count twice.

    Args:
        models: At least one model.
        folds: Names of the folds of every model; by default its complete ones.

    Raises:
        ModelError: If a fold is missing, or two models have the same weights.
    """
    if len(models) == 1:  # nothing to compare, so that its weights need not be read
        models[0].weights(folds)
        return
    by_digest: dict[str, ModelFolder] = {}
    for model in models:
        same = by_digest.setdefault(model.digest(folds), model)
        if same is not model:
            raise ModelError(
                f"expected different models to predict together, found the same weights in {same.name} and "
                f"{model.name}; leave one out"
            )


def warn_of_short_training(models: Sequence[ModelFolder], folds: Sequence[str] | None = None) -> None:
    """Warn of models that were hardly trained: a trial of a few steps, perhaps.

    Args:
        models: At least one model.
        folds: Names of the folds of every model; by default its complete ones.
    """
    for model in models:
        if short := short_training(model.weights(folds), model.configuration.training):
            logger.warning(
                "%s was trained for %d of the %d steps that its plan has; its labels will be coarse: train "
                "it for longer, or choose another model",
                *(model.name, *short),
            )


def warn_of_unfinished_folds(models: Sequence[ModelFolder], folds: Sequence[str] | None = None) -> None:
    """Warn of models some of whose folds are still in training.

    Args:
        models: At least one model.
        folds: Names of the folds that predict; those that are not asked for do not matter.
    """
    for model in models:
        unfinished = unfinished_folds(model.path)
        if set(unfinished) & set(folds or unfinished):
            logger.warning("%s", describe_unfinished(model.name, unfinished, model.folds))


def unseen_modalities(
    models: Sequence[ModelFolder], folds: Sequence[str] | None = None
) -> dict[Modality, str]:
    """Return a warning for each modality of which a model has not seen a case in training.

    Args:
        models: Models; those of which it is not known count as if they knew every modality.
        folds: Names of the folds of every model; by default its complete ones.
    """
    warnings: dict[Modality, str] = {}
    for known in (_trained_modalities(model, folds) for model in models):
        for modality in get_args(Modality):
            if known and modality not in known:
                warnings.setdefault(
                    modality,
                    f"it is {modality}, and the model has learnt from {' and '.join(sorted(known))} alone: "
                    "do not trust its labels",
                )
    return warnings


def _trained_modalities(model: ModelFolder, folds: Sequence[str] | None) -> set[str]:
    """Return the modalities that the folds were trained on, none where it is unknown."""
    trained = [training_of(path).modalities for path in model.weights(folds)]
    if None not in trained:
        return set(chain.from_iterable(filter(None, trained)))
    # Weights of earlier versions do not say it, but the held-out cases of all folds do.
    try:
        scores = read_cross_validation(model.path)
    except FormatError:
        return set()
    return set(scores.by_modality) if len(scores.folds) >= FOLDS else set()


def _networks(model: ModelFolder, folds: Sequence[str] | None, *, mirror: bool) -> Sequence[nn.Module]:
    networks = model.networks(folds)
    if not mirror:
        return networks
    return with_mirror(networks, model.plan.labels, model.configuration.augmentation)


def coarse_predictor(model: ModelFolder, device: torch.device) -> Predictor:
    """Load a model that tells roughly where the spine lies: one fold, whose tiles do not overlap."""
    fold = model.ensemble[:1]
    configuration = model.trained_configuration(fold)
    half = inference_half(configuration.training.precision, device)
    return Predictor(
        plan=model.plan,
        configuration=configuration,
        networks=ready_networks(model.networks(fold), device, half),
        device=device,
        step_size=LOCALIZER_STEP_SIZE,
    )


def _localizer(model: ModelFolder, device: torch.device) -> tuple[Predictor | None, tuple[int, ...]]:
    """Return the localizer of a model, and the values that it has to find together if it is the starter."""
    if (coarse := find_localizer(model)) is not None:
        logger.info("%s locates the spine first; use --no-roi to skip this", coarse.configuration.name)
        return coarse_predictor(coarse, device), ()
    if not starter_locates(model) or not STARTER_FILE.is_file():
        return None, ()
    try:
        with opened_model(STARTER_FILE) as opened:
            predictor = coarse_predictor(opened, device)
    except AutospineError as error:  # nobody has asked for it, so that it must not stop the work
        logger.warning("the starter cannot locate the spine: %s", error)
        return None, ()
    logger.info("the starter locates the spine in wide images first; use --no-roi to skip this")
    labels = predictor.plan.labels
    values = dict(zip(labels.names, labels.painted, strict=True))
    named = replace(predictor, configuration=replace(predictor.configuration, name=STARTER))
    return named, tuple(values[name] for name in FOUND_TOGETHER)
