"""From images to label maps."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autospine import __version__
from autospine.core.errors import DatasetError, WorkspaceError, counted, listed
from autospine.dataset.case_parts import CasePart
from autospine.dataset.inputs import find_inputs
from autospine.dataset.raw import Case
from autospine.evaluation.postprocessing import Postprocessing
from autospine.inference.ensemble import mirrored_channels
from autospine.models.model_folder import ModelFolder
from autospine.prediction.announcement import Estimates
from autospine.prediction.build_predictor import (
    build_predictor,
    check_distinct,
    unseen_modalities,
    warn_of_short_training,
    warn_of_unfinished_folds,
)
from autospine.prediction.case_log import PredictedCase, UsedModel
from autospine.prediction.case_outputs import CaseOutputs, PreviewDrawer
from autospine.prediction.label_maps import LabelMaps
from autospine.prediction.model_postprocessing import find_post_processing, warn_of_other_weights
from autospine.prediction.output_folder import check_apart_from_inputs, check_output
from autospine.prediction.part_records import join_if_last, join_parts, working_on
from autospine.prediction.prediction_options import NO_MODEL, PredictionOptions
from autospine.prediction.prediction_run import Predicted, PredictionRun
from autospine.prediction.run_record import RunRecord
from autospine.prediction.vertebra_counter import check_counter, choose_counter, opened_counter
from autospine.prediction.vertebra_naming import choose_naming
from autospine.storage.arrays import has_blosc2
from autospine.storage.atomic import check_writable, remove_abandoned
from autospine.storage.file_names import same_name
from autospine.system.devices import choose_device, describe
from autospine.system.hardware import held_memory
from autospine.system.log import get_logger

logger = get_logger(__name__)


def predict(
    models: Sequence[ModelFolder],
    inputs: Path | Sequence[Path],
    output: Path,
    options: PredictionOptions,
    draw_preview: PreviewDrawer | None = None,
    *,
    only: Collection[str] | None = None,
    part: CasePart | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> Predicted:
    """Predict cases with the ensemble of a model's folds, or of several models, each onto its own grid.

    A case that fails is reported and the others go on. While the networks run, the next image is read and
    the last label map is written.

    Args:
        models: At least one opened model folder; several have the same labels and channels.
        inputs: An image, a folder of images or DICOM, or several of these.
        output: Folder for `CASE.ext` and `predictions.json`; made if absent.
        options: The user's choices.
        draw_preview: Draws `CASE_preview.png` beside each label map; None for no previews.
        only: Cases to predict, of those that the inputs hold; None for all of them.
        part: Part of these cases that this run predicts, while others predict the rest into the same folder;
            None for all of them.
        unwanted: Tells, before each case, whether nobody waits for it any more.

    Raises:
        PredictionUnwantedError: If nobody waits for the other cases.
        WorkspaceError: If `output` is a file or cannot be written to, another process is at the same part, or
            there is no Blosc2 to write probabilities with.
        ModelError: If a fold is missing, the models do not fit together, one was trained without mirroring
            and is to predict with it, or the model that is to count vertebrae cannot.
        DatasetError: If there is nothing to predict, no case has all of its channels, or they cannot be
            written in this format, or none of `only` is there.
        AutospineError: If highdicom is needed and not installed.
        FormatError: If the output folder's record is damaged.
    """
    # Everything that can be refused is refused before the networks are loaded.
    device = choose_device(options.device)
    plan = models[0].plan
    cases, faults, maps = prepare_output(models, inputs, output, options, only)
    post_processing = find_post_processing(models) if options.post_process else None
    counting = choose_counter(options.count_with, post_processing, named=options.name_vertebrae is not False)
    naming = choose_naming(plan.labels, post_processing, options.name_vertebrae, counted=counting is not None)
    template = replace(_template(models, post_processing, device, options), counted_with=counting)
    outputs = CaseOutputs(
        maps=maps,
        post_processing=post_processing,
        naming=naming,
        save_probabilities=options.save_probabilities,
        draw_preview=draw_preview,
    )
    if part is None:
        join_parts(output)
        record = RunRecord.open(output, template)
        return _predicted(models, cases, faults, outputs, record, device, options, unwanted)
    names = (*(case.name for case in cases), *faults)
    own = set(part.of(names))
    with working_on(output, part) as place:
        record = RunRecord.open(output, template, place)
        if own:
            cases = tuple(case for case in cases if case.name in own)
            faults = {name: fault for name, fault in faults.items() if name in own}
            result = _predicted(models, cases, faults, outputs, record, device, options, unwanted)
        else:
            logger.info("part %s has none of the %s", part, counted(len(names), "case"))
            result = Predicted(cases=(), written=(), kept=frozenset())
    return replace(result, whole=join_if_last(output, part, names, maps.ending))


def prepare_output(
    models: Sequence[ModelFolder],
    inputs: Path | Sequence[Path],
    output: Path,
    options: PredictionOptions,
    only: Collection[str] | None,
) -> tuple[tuple[Case, ...], dict[str, str], LabelMaps]:
    """Find the cases, refuse what cannot be predicted, make the folder, and warn about the models.

    Returns:
        The complete cases, the faults of the others by name, and what their label maps are.

    Raises:
        AutospineError: As `predict` says.
    """
    check_output(output)
    plan = models[0].plan
    cases, faults = _chosen(*find_inputs(inputs, plan.channels), only)
    maps = LabelMaps(folder=output, ending=options.ending or plan.file_ending, labels=plan.labels)
    _check(models, cases, maps, options)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    remove_abandoned(output)
    warn_of_other_weights(models)
    warn_of_short_training(models, options.folds)
    warn_of_unfinished_folds(models, options.folds)
    return cases, faults, maps


def _predicted(
    models: Sequence[ModelFolder],
    cases: Sequence[Case],
    faults: Mapping[str, str],
    outputs: CaseOutputs,
    record: RunRecord,
    device: torch.device,
    options: PredictionOptions,
    unwanted: Callable[[], bool],
) -> Predicted:
    """Load the networks and predict cases; the errors are those of `predict`."""
    predictor = build_predictor(
        models,
        device,
        options.folds,
        region_of_interest=options.region_of_interest,
        mirror=options.mirror,
    )
    outputs.maps.write_names()
    with opened_counter(record.template.counted_with, models, device) as counter:
        run = PredictionRun(
            predictor,
            outputs,
            record,
            device,
            unseen=unseen_modalities(models, options.folds),
            estimates=Estimates(held_memory()),
            training_images=[
                each for model in models for each in model.training_images(options.folds).items()
            ],
            counter=counter,
        )
        return run.predict(cases, faults, overwrite=options.overwrite, unwanted=unwanted)


def _chosen(
    cases: tuple[Case, ...], faults: dict[str, str], only: Collection[str] | None
) -> tuple[tuple[Case, ...], dict[str, str]]:
    """Return the cases to predict, and the faults of incomplete ones, of those that were found."""
    if only is None:
        return cases, faults
    wanted = {same_name(name): name for name in only}
    found = {same_name(name) for name in (*(case.name for case in cases), *faults)}
    if absent := [name for key, name in wanted.items() if key not in found]:
        if not wanted.keys() & found:
            raise DatasetError(
                f"expected {listed(absent)} among the inputs, found {listed([case.name for case in cases])}; "
                "name the images of these cases with -i"
            )
        logger.warning(
            "%s to predict, but not among the inputs: %s", counted(len(absent), "case"), listed(absent)
        )
    return (
        tuple(case for case in cases if same_name(case.name) in wanted),
        {name: fault for name, fault in faults.items() if same_name(name) in wanted},
    )


def _check(
    models: Sequence[ModelFolder], cases: Sequence[Case], maps: LabelMaps, options: PredictionOptions
) -> None:
    """Refuse models, cases and options that do not fit together; the errors are those of `predict`."""
    if options.save_probabilities and not has_blosc2():
        raise WorkspaceError(
            "expected Blosc2 to write probabilities with, found that it cannot be imported; "
            "run `pip install blosc2`, or leave out --save-probabilities"
        )
    check_apart_from_inputs(maps.folder, cases)
    maps.check(cases)
    if options.count_with not in (None, NO_MODEL):
        check_counter(options.count_with, models)
    check_distinct(models, options.folds)
    if options.mirror:
        for model in models:
            mirrored_channels(model.plan.labels, model.configuration.augmentation)  # raises if it cannot


def _template(
    models: Sequence[ModelFolder],
    post_processing: Postprocessing | None,
    device: torch.device,
    options: PredictionOptions,
) -> PredictedCase:
    """Return the facts that are the same for every case of the run."""
    classes = () if post_processing is None else tuple(post_processing.cleaned_classes)
    if classes:
        logger.info("label maps are post-processed: %s", ", ".join(classes))
    return PredictedCase(
        case="",
        status="kept",
        models=tuple(
            UsedModel(
                folder=model.name,
                folds=tuple(options.folds or model.ensemble),
                digest=model.digest(options.folds),
            )
            for model in models
        ),
        versions={"autospine": __version__, "torch": torch.__version__},
        device=describe(device),
        mirrored=options.mirror,
        cleaned=classes,
    )
