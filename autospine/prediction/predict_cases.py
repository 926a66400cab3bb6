"""From images to label maps."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import torch

from autospine import __version__
from autospine.core.errors import WorkspaceError
from autospine.dataset.inputs import find_inputs
from autospine.dataset.raw import Case
from autospine.evaluation.held_out import unseen_modality
from autospine.inference.mirror import mirrored_channels
from autospine.models.model_folder import ModelFolder
from autospine.prediction.case_log import PredictedCase, UsedModel
from autospine.prediction.cleanup import find_cleanup, warn_of_other_weights
from autospine.prediction.label_maps import LabelMaps
from autospine.prediction.loading import check_different, joint_predictor
from autospine.prediction.output_folder import check_output
from autospine.prediction.prediction_options import PredictionOptions
from autospine.prediction.prediction_run import Predicted, PredictionRun
from autospine.storage.arrays import has_blosc2
from autospine.storage.atomic import remove_old_leftovers
from autospine.system.devices import choose_device, describe
from autospine.system.log import get_logger

logger = get_logger(__name__)


def predict(
    models: Sequence[ModelFolder],
    inputs: Path,
    output: Path,
    options: PredictionOptions,
) -> Predicted:
    """Predict cases with the ensemble of a model's folds, or of several models', each onto its own grid.

    A case that fails is reported and the others go on. While the networks run, the next image is read and
    the last label map is written.

    Args:
        models: at least one opened model folder; several have the same labels and channels.
        inputs: an image, a folder of images or DICOM.
        output: folder for `CASE.ext` and `predictions.json`; made if absent.
        options: what the user may choose.

    Raises:
        WorkspaceError: if `output` is a file or cannot be written to, or there is no Blosc2 to write
            probabilities with.
        ModelError: if a fold is missing, the models do not fit together, or one was trained without mirroring
            and is to predict with it.
        DatasetError: if there is nothing to predict, no case has all of its channels, or they cannot be
            written in this format.
        AutospineError: if highdicom is needed and not installed.
        FormatError: if the output folder's record is damaged.
    """
    check_output(output)
    if options.save_probabilities and not has_blosc2():
        raise WorkspaceError(
            "expected Blosc2 to write probabilities with, found that it cannot be imported; "
            "run `pip install blosc2`, or leave out --save-probabilities"
        )
    device = choose_device(options.device)
    cases, faults = find_inputs(inputs, models[0].plan.channels)
    _spare_inputs(cases, output)
    plan = models[0].plan
    maps = LabelMaps(folder=output, ending=options.ending or plan.file_ending, labels=plan.labels)
    maps.check(cases)
    check_different(models, options.folds)
    if options.mirror:
        for model in models:
            mirrored_channels(model.plan.labels, model.configuration.augmentation)  # raises where it cannot
    _open(output)
    remove_old_leftovers(output)
    warn_of_other_weights(models)
    cleanup = find_cleanup(models) if options.post_process else None
    if cleanup is not None and cleanup.cleaned_classes:
        logger.info("label maps are cleaned: %s", ", ".join(cleanup.cleaned_classes))
    facts = PredictedCase(
        case="",
        status="kept",
        models=_used(models, options.folds),
        versions={"autospine": __version__, "torch": torch.__version__},
        device=describe(device),
        mirrored=options.mirror,
        cleaned=() if cleanup is None else tuple(cleanup.cleaned_classes),
    )
    predictor = joint_predictor(
        models,
        device,
        options.folds,
        region_of_interest=options.region_of_interest,
        mirror=options.mirror,
    )
    maps.write_names()
    unseen = partial(unseen_modality, [model.path for model in models])
    run = PredictionRun(
        predictor, cleanup, maps, facts, device, unseen=unseen, save_probabilities=options.save_probabilities
    )
    return run.over(cases, faults, overwrite=options.overwrite)


def _used(models: Sequence[ModelFolder], folds: Sequence[str] | None) -> tuple[UsedModel, ...]:
    """What the record says of the models."""
    return tuple(
        UsedModel(folder=model.name, folds=tuple(folds or model.ensemble), digest=model.digest(folds))
        for model in models
    )


def _open(output: Path) -> None:
    """Make the output folder, and find out whether it can be written to before the job is done.

    Raises:
        WorkspaceError: if it cannot.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise WorkspaceError(
            f"expected an output folder that can be written to, found {output} ({error.strerror}); "
            "mend its permissions or name another with -o"
        ) from None


def _spare_inputs(cases: Sequence[Case], output: Path) -> None:
    """Refuse to write label maps among the images: they would replace them, or be taken for images next time.

    Raises:
        WorkspaceError: if the output folder holds an input.
    """
    if (output / "dataset.json").is_file():
        raise WorkspaceError(
            f"expected an output folder other than that of a dataset, found dataset.json in {output}; name "
            "another folder with -o"
        )
    images = [image.resolve() for case in cases for image in case.images]
    if any(output.resolve() in (image, image.parent) for image in images):
        raise WorkspaceError(
            f"expected an output folder other than that of the images, found {output} for both; "
            "name another folder with -o"
        )
