"""`autospine predict`."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for
from autospine.cli.declared import takes
from autospine.cli.prediction_table import show_predictions
from autospine.cli.reporting import report_on
from autospine.cli.screen import say, say_next
from autospine.core.errors import listed
from autospine.dataset.case_parts import parse_part
from autospine.io.formats import ENDINGS, check_inputs
from autospine.prediction.output_folder import check_output
from autospine.prediction.prediction_options import NO_MODEL, PredictionOptions
from autospine.storage.trained_models import (
    STARTER,
    STARTER_FILE,
    STARTER_LIMITS,
    check_folds,
    find_folds,
    named_model,
    portable_model,
)
from autospine.storage.workspace import Workspace
from autospine.system.hardware import check_device_name

if TYPE_CHECKING:
    from autospine.cluster.dask_cluster import DaskCluster
    from autospine.models.model_folder import ModelFolder
    from autospine.prediction.case_outputs import PreviewDrawer
    from autospine.prediction.prediction_run import Predicted

Images = Annotated[
    list[Path],
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        help="Segment this image, every image of this folder, or a folder of DICOM slices. Repeat it for "
        "several.",
    ),
]
LabelMaps = Annotated[
    Path,
    typer.Option("--output", "-o", help="Write the label maps into this folder, which is made if absent."),
]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Predict with this model folder or .autospine file, or with `starter`, which comes with "
        "AutoSpine. Repeat it for several, which predict as an ensemble; by default the best of `autospine "
        "compare` predicts, else the model with the best cross-validation, or with most folds, and where "
        "none is trained the starter.",
        show_default=False,
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Predict with the best model of this dataset.",
        show_default=False,
    ),
]
ConfigurationName = Annotated[
    str | None,
    typer.Option(
        "--configuration",
        "-c",
        help="Predict with the model of this configuration, by name.",
        show_default=False,
    ),
]

Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Draw the labels of each case over slices of its image, as CASE_preview.png.",
    ),
]

OnlyFailed = Annotated[
    Path | None,
    typer.Option(
        "--only-failed",
        metavar="FILE",
        help="Predict only the cases that are marked fail in these marks of a report.",
        show_default=False,
    ),
]

Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Predict the I-th of N parts, while other jobs predict the others into the same folder: every "
        "N-th case of the list sorted by name, from the I-th on. The part that ends last writes the record "
        "and the report.",
        show_default=False,
    ),
]


@app.command(
    rich_help_panel="Predict",
    epilog="For example: autospine predict -i images -o out -m spine.autospine",
)
@takes(PredictionOptions)
def predict(
    inputs: Images,
    output: LabelMaps,
    *,
    model: Models = None,
    dataset: DatasetName = None,
    configuration: ConfigurationName = None,
    options: PredictionOptions,
    preview: Preview = False,
    only_failed: OnlyFailed = None,
    part: Part = None,
    report: shared_options.Report = True,
    workspace: shared_options.Workspace = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Segment images with the ensemble of a model's folds, each on its own grid.

    A table at the end shows the status of each case; the exit code is 1 if any failed.
    """
    check_inputs(inputs)
    check_output(output)
    check_device_name(options.device)
    only = None if only_failed is None else _failed(only_failed)
    own = None if part is None else parse_part(part)
    elsewhere = scheduler is not None or slurm is not None
    if own is not None and elsewhere:
        raise typer.BadParameter("a cluster makes parts by itself; leave it out", param_hint="--part")
    folders, reason = tuple(named_model(given) for given in model or ()), "as asked for"
    if not folders:
        from autospine.models.best import choose_models

        folders, reason = choose_models(Workspace.locate(workspace), dataset, configuration)
    for folder in folders:
        if not folder.is_file():  # as an archive would be
            check_folds(folder, find_folds(folder), options.folds or ())

    from autospine.models.archive import opened_model
    from autospine.prediction.predict_cases import predict as predict_cases
    from autospine.system.allocation import use_huge_pages
    from autospine.system.devices import choose_device

    if not elsewhere:
        choose_device(options.device)  # a GPU that is not there is refused before anything is said
    use_huge_pages()
    with ExitStack() as bundles:
        opened = [bundles.enter_context(opened_model(folder)) for folder in folders]
        _say_models(folders, opened, options, reason)
        drawer = _drawer() if preview else None
        counting = () if options.count_with in (None, NO_MODEL) else (named_model(Path(options.count_with)),)
        # The starter is everywhere.
        read = (*inputs, *(each for each in (*folders, *counting) if each != STARTER_FILE))
        with cluster_for(scheduler, slurm, output, *read) as cluster:
            if cluster is None:
                result = predict_cases(opened, inputs, output, options, drawer, only=only, part=own)
            else:
                result = _on_cluster(cluster, folders, opened, inputs, output, options, drawer, only)
            if result.cases:
                show_predictions(result.cases, result.kept)
            if report and result.whole:
                report_on(output, cluster=cluster)
    if result.cases:
        _say_what_was_written(result, output, options)
    if result.failed:
        n = len(result.failed)
        say(f"{n} case{'s' if n > 1 else ''} failed: {', '.join(result.failed)}")
        if earlier := _earlier_maps(output, result.failed):
            say(
                f"in {output} there are label maps of an earlier run under these names: {listed(earlier)}; "
                "remove them, or predict the cases again"
            )
        raise typer.Exit(1)


def _say_models(
    folders: Sequence[Path], opened: "Sequence[ModelFolder]", options: PredictionOptions, reason: str
) -> None:
    """Say which models and folds predict and why, and what the starter cannot do."""
    from autospine.pipeline.planned_dataset import missing_folds

    for name, trained in zip(folders, opened, strict=True):
        trained.weights(options.folds)  # raises where a fold is missing
        folds = options.folds or trained.ensemble
        lacks = () if options.folds else missing_folds(name, folds)
        called = STARTER if name == STARTER_FILE else name
        say(
            f"model: {called}, fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}"
            + (f"; without {', '.join(lacks)}, not trained yet" if lacks else "")
            + f" ({reason})"
        )
    if STARTER_FILE in folders:
        say(STARTER_LIMITS, "yellow")


def _on_cluster(
    cluster: "DaskCluster",
    folders: Sequence[Path],
    opened: "Sequence[ModelFolder]",
    inputs: Sequence[Path],
    output: Path,
    options: PredictionOptions,
    drawer: "PreviewDrawer | None",
    only: Collection[str] | None,
) -> "Predicted":
    from autospine.prediction.cluster_prediction import PredictedParts, predict_on_cluster

    work = PredictedParts(
        models=tuple(portable_model(each.absolute()) for each in folders),
        inputs=tuple(path.absolute() for path in inputs),
        output=output.absolute(),
        options=replace(options, count_with=_portable(options.count_with)),
        draw_preview=drawer,
        only=None if only is None else tuple(only),
    )
    return predict_on_cluster(opened, work, cluster)


def _portable(counting: str | None) -> str | None:
    """Return the name of a model that counts vertebrae as workers know it."""
    if counting in (None, NO_MODEL):
        return counting
    return str(portable_model(named_model(Path(counting)).absolute()))


def _failed(marks: Path) -> Collection[str]:
    """Return the cases that are marked as failed in a file of marks."""
    from autospine.dataset.case_marks import cases_marked

    return tuple(cases_marked(marks, "fail"))


def _drawer() -> "PreviewDrawer":
    """Return what draws previews; only who wants them waits for matplotlib."""
    from autospine.report.preview import write_preview

    return write_preview


def _earlier_maps(output: Path, failed: Iterable[str]) -> list[str]:
    """Return the files of label maps that lie in a folder under the names of cases that have failed."""
    names = [f"{case}{ending}" for case in failed for ending in (*ENDINGS, ".dcm")]
    return [name for name in names if (output / name).is_file()]


def _say_what_was_written(result: "Predicted", output: Path, options: PredictionOptions) -> None:
    from autospine.prediction.build_predictor import NOTHING_FOUND

    made, kept = len(result.written) - len(result.kept), len(result.kept)
    if kept and not (made or result.failed):
        say(f"nothing to do: {output} has {'the label map' if kept == 1 else f'all {kept} label maps'}")
    else:
        also = f", {kept} kept" if kept else ""
        say(f"written to {output}: {made} of {made + len(result.failed)} label maps{also}")
    if empty := [case.case for case in result.cases if NOTHING_FOUND in case.warnings]:
        say(f"no spine was found in {listed(empty)}", "yellow")
    if unnamed := [case.case for case in result.cases if case.naming_error is not None]:
        say(f"vertebrae were not named in {listed(unnamed)}; the label maps are as predicted", "yellow")
    if made and not result.failed and result.whole and options.ending != ".dcm":
        say_next("evaluate", str(output), "REFERENCES", note=", where there are any")
