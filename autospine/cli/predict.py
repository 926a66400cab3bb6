"""`autospine predict`."""

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_predictions


class Format(StrEnum):
    """Of predicted label maps."""

    NII_GZ = "nii.gz"
    NII = "nii"
    MHA = "mha"
    NRRD = "nrrd"
    SEG_NRRD = "seg.nrrd"
    DCM = "dcm"


Images = Annotated[Path, typer.Option("--input", "-i", help="An image, a folder of images, or DICOM slices.")]
LabelMaps = Annotated[Path, typer.Option("--output", "-o", help="Folder for the label maps.")]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Model folder or .autospine file; repeated, the models predict together; by default the "
        "best of `autospine compare`, else the one completed last.",
        show_default=False,
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", help="Take the best, else the last model of this dataset.", show_default=False
    ),
]
ConfigurationName = Annotated[
    str | None,
    typer.Option(
        "--configuration", "-c", help="Take the last model of this configuration.", show_default=False
    ),
]
Folds = Annotated[
    list[str] | None,
    typer.Option(
        "--fold",
        "-f",
        metavar="FOLD",
        help="Which fold to take: 0 ... 4, full or all; may be repeated; by default all of the five.",
        show_default=False,
    ),
]
Continue = Annotated[bool, typer.Option("--continue", help="Skip cases whose label map is there already.")]
Postprocessing = Annotated[
    bool,
    typer.Option(
        "--postprocessing/--no-postprocessing",
        help="Clean label maps as the model's cross-validation has found to help.",
    ),
]
RegionOfInterest = Annotated[
    bool,
    typer.Option(
        "--roi/--no-roi",
        help="Leave out tiles of air, and those off the spine where a lowres or good fast model finds it.",
    ),
]
Mirrored = Annotated[
    bool,
    typer.Option(
        "--mirror",
        help="Run every tile with left and right exchanged too, as training did: twice the time.",
    ),
]
FileFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="Of the label maps: NIfTI, MetaImage, NRRD (seg.nrrd opens as a segmentation in 3D Slicer), "
        "or dcm for DICOM segmentations of DICOM slices; by default that of the training data.",
        show_default=False,
    ),
]
SaveProbabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Write the probabilities of every class as well.")
]


@app.command(
    rich_help_panel="Predict",
    epilog="For example: autospine predict -i images -o out -m spine.autospine",
)
def predict(
    inputs: Images,
    output: LabelMaps,
    model: Models = None,
    dataset: DatasetName = None,
    configuration: ConfigurationName = None,
    fold: Folds = None,
    keep: Continue = False,
    postprocessing: Postprocessing = True,
    roi: RegionOfInterest = True,
    mirror: Mirrored = False,
    file_format: FileFormat = None,
    save_probabilities: SaveProbabilities = False,
    workspace: options.Workspace = None,
    device: options.Device = "auto",
) -> None:
    """Segment images with the ensemble of a model's folds, each on its own grid."""
    from autospine.models.archive import opened_model
    from autospine.models.best import choose_models
    from autospine.prediction.predict_cases import predict as predict_cases
    from autospine.prediction.prediction_options import PredictionOptions
    from autospine.storage.workspace import Workspace
    from autospine.system.allocation import use_huge_pages

    use_huge_pages()
    folders, reason = tuple(model or ()), "as asked for"
    if not folders:
        folders, reason = choose_models(Workspace.locate(workspace), dataset, configuration)
    fold = None if "all" in (fold or ()) else fold
    with ExitStack() as bundles:
        opened = [bundles.enter_context(opened_model(folder)) for folder in folders]
        for name, one in zip(folders, opened, strict=True):
            one.weights(fold)  # raises where a fold is missing
            folds = fold or one.ensemble
            say(f"model: {name}, fold{'s' if len(folds) > 1 else ''} {', '.join(folds)} ({reason})")
        result = predict_cases(
            opened,
            inputs,
            output,
            PredictionOptions(
                folds=tuple(fold) if fold else None,
                overwrite=not keep,
                post_process=postprocessing,
                region_of_interest=roi,
                mirror=mirror,
                ending=f".{file_format}" if file_format else None,
                save_probabilities=save_probabilities,
                device=device,
            ),
        )
    show_predictions(result.cases, result.kept)
    made, kept = len(result.written) - len(result.kept), len(result.kept)
    if kept and not (made or result.failed):
        say(f"nothing to do: {output} has all {kept} label maps")
    else:
        also = f", {kept} kept" if kept else ""
        say(f"written to {output}: {made} of {made + len(result.failed)} label maps{also}")
    if made and not result.failed and file_format != "dcm":
        say(f"next: autospine evaluate {output} REFERENCES, where there are any")
    if result.failed:
        n = len(result.failed)
        say(f"{n} case{'s' if n > 1 else ''} failed: {', '.join(result.failed)}")
        raise typer.Exit(1)
