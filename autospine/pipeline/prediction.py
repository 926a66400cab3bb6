"""From images to label maps, and from label maps to scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autospine.dataset import Case, case_modality, find_inputs, known_cases, load_labels
from autospine.errors import AutospineError, DatasetError, EvaluationError, WorkspaceError
from autospine.evaluation import Evaluation, evaluate_folder
from autospine.images import read_volume, write_labels
from autospine.inference import JointPredictor, ModelFolder, Predictor
from autospine.log import get_logger
from autospine.network import prepare_memory
from autospine.pipeline.ensembles import find_cleanup, joint_predictor
from autospine.postprocessing import Postprocessing

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What became of the cases to predict."""

    written: tuple[Path, ...]
    failed: dict[str, str] = field(default_factory=dict)
    """Case -> what went wrong."""


def predict(
    models: Sequence[ModelFolder],
    inputs: Path,
    output: Path,
    *,
    device: torch.device,
    folds: Sequence[str] | None = None,
    overwrite: bool = True,
    postprocess: bool = True,
) -> Predicted:
    """Predict cases with the ensemble of a model's folds, or of several models', each onto its own grid.

    A case that fails is reported and the others go on.

    Args:
        models: at least one opened model folder; several have the same labels and channels.
        inputs: an image, a folder of images or DICOM.
        output: folder for `CASE.ext`; made if absent.
        device: where the networks run.
        folds: which networks of each; by default every complete one.
        overwrite: whether cases that are there already are predicted again.
        postprocess: whether label maps are cleaned as cross-validation has found to help.

    Raises:
        WorkspaceError: if `output` is a file.
        ModelError: if a fold is missing, or the models do not fit together.
        DatasetError: if there is nothing to predict.
    """
    plan = models[0].plan
    if output.exists() and not output.is_dir():
        raise WorkspaceError(f"expected an output folder, found the file {output}; name a folder with -o")
    cases = find_inputs(inputs, plan.channels)
    _spare_inputs(cases, output)
    output.mkdir(parents=True, exist_ok=True)
    cleanup = find_cleanup(models) if postprocess else None
    if cleanup is not None and cleanup.cleaned_classes:
        logger.info("label maps are cleaned: %s", ", ".join(cleanup.cleaned_classes))
    prepare_memory(device)
    predictor = joint_predictor(models, device, folds)
    written, failed = [], {}
    for index, case in enumerate(cases, start=1):
        target = output / f"{case.name}{plan.file_ending}"
        if target.is_file() and not overwrite:
            logger.info("%s is there already", target)
            written.append(target)
            continue
        try:
            _predict_case(predictor, cleanup, case, target, f"{case.name} ({index}/{len(cases)})")
            written.append(target)
        except (AutospineError, RuntimeError, MemoryError) as error:
            # RuntimeError: a GPU out of memory, for instance; the next case may be smaller.
            failed[case.name] = str(error) or type(error).__name__
            logger.error("%s: %s", case.name, failed[case.name])
    return Predicted(written=tuple(written), failed=failed)


def _spare_inputs(cases: Sequence[Case], output: Path) -> None:
    """Refuse to write label maps among the images: they would replace them, or be taken for images next time.

    Raises:
        WorkspaceError: if the output folder holds an input.
    """
    if any(output.resolve() == image.resolve().parent for case in cases for image in case.images):
        raise WorkspaceError(
            f"expected an output folder other than that of the images, found {output} for both; "
            "name another folder with -o"
        )


def _predict_case(
    predictor: Predictor | JointPredictor,
    cleanup: Postprocessing | None,
    case: Case,
    target: Path,
    description: str,
) -> None:
    volume = read_volume(case.images)
    for note in volume.notes:
        logger.info("%s: %s", case.name, note)
    modality = case_modality(case, volume)
    if case.modality is None:
        logger.info("%s is taken for %s by its intensities", case.name, modality)
    labels = predictor.predict(volume, modality, description)
    if cleanup is not None:
        labels = cleanup.apply(labels, volume.grid.spacing_mm)
    write_labels(target, labels, volume.stored)


def evaluate(predictions: Path, references: Path, description: Path | None = None) -> Evaluation:
    """Compare two folders of label maps.

    Args:
        predictions: predicted label maps.
        references: true ones.
        description: the dataset.json that names the labels; by default the one beside the references.

    Raises:
        DatasetError: if there is no description.
        EvaluationError: if the folders do not match.
    """
    if not references.is_dir():
        raise EvaluationError(f"expected a folder of references, found none at {references}; name another")
    path = description or references.resolve().parent / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"expected the dataset.json that names the labels at {path}, found none; give it with --labels"
        )
    return evaluate_folder(predictions, references, load_labels(path), known_cases(path.parent))
