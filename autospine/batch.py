"""Prediction of whole folders from Python, as `autospine predict` does it."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from autospine.core.errors import FailedCasesError, counted, listed_faults
from autospine.models.archive import opened_model
from autospine.models.model_folder import model_paths, named_folds
from autospine.prediction.case_outputs import PreviewDrawer
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions
from autospine.system import log
from autospine.system.allocation import use_huge_pages
from autospine.system.devices import own_defaults


@own_defaults()
def predict_folder(
    model: str | Path | Sequence[str | Path],
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    device: str = "auto",
    folds: str | int | Sequence[str | int] | None = None,
    ending: str | None = None,
    overwrite: bool = True,
    preview: bool = False,
    save_probabilities: bool = False,
    postprocess: bool = True,
    mirror: bool = False,
    roi: bool = True,
    progress: bool = False,
) -> dict[str, Path]:
    """Segment every case of a folder, as `autospine predict -i images -o output -m model` does.

    While the networks run, the next image is read and the last label map is written, so that many cases take
    less time than with `Model.predict` one after the other.

    Args:
        model: A model folder or an `.autospine` file, or a list of models that predict together.
        images: A folder of images or DICOM slices, an image, or a list of these.
        output: Folder for the label maps and the record `predictions.json`; made if absent.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        folds: Name of the fold, or of those that predict together; by default every complete one.
        ending: Format of the label maps, such as `.nrrd` or `.dcm`; by default that of the training labels.
        overwrite: Whether cases are predicted again whose label map is there.
        preview: Whether the labels of each case are drawn over slices of its image, as `CASE_preview.png`.
        save_probabilities: Whether the probabilities of each case are written beside its label map.
        postprocess: Whether label maps are post-processed.
        mirror: Whether each tile is also run with left and right exchanged.
        roi: Whether tiles are skipped that contain only air or lie away from the spine.
        progress: Whether progress and messages are shown on standard error.

    Returns:
        The label map of each case by its name.

    Raises:
        ModelError: If there is no such model, a fold is missing, or several do not fit together.
        DatasetError: If there is nothing to predict.
        FailedCasesError: If cases have failed; it is an `ImageError` that names each, and its `written` has
            the label maps of the others.
    """
    options = PredictionOptions(
        device=device,
        folds=named_folds(folds),
        ending=ending,
        overwrite=overwrite,
        save_probabilities=save_probabilities,
        post_process=postprocess,
        mirror=mirror,
        region_of_interest=roi,
    )
    models, inputs = model_paths(model), _paths(images)
    use_huge_pages()
    with log.shown() if progress else nullcontext(), ExitStack() as bundles:
        opened = [bundles.enter_context(opened_model(path)) for path in models]
        result = predict(opened, inputs, Path(output), options, _drawer() if preview else None)
    done = (case.case for case in result.cases if case.status != "failed")
    written = dict(zip(done, result.written, strict=True))
    if result.failed:
        faults = listed_faults([f"{name}: {reason}" for name, reason in result.failed.items()])
        raise FailedCasesError(
            f"{counted(len(result.failed), 'case')} of {len(result.cases)} failed: {faults}",
            written,
            result.failed,
        )
    return written


def _drawer() -> PreviewDrawer:
    from autospine.report.preview import write_preview  # it imports matplotlib

    return write_preview


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]
