"""`autospine evaluate`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for
from autospine.cli.reporting import report_on
from autospine.cli.screen import say, show_differences, show_evaluation
from autospine.core.errors import EvaluationError, FormatError, listed, share
from autospine.storage.atomic import check_writable
from autospine.storage.file_names import same_name

Predictions = Annotated[Path, typer.Argument(help="Evaluate the predicted label maps in this folder.")]
References = Annotated[
    Path, typer.Argument(help="Compare them with the reference label maps of the same names in this folder.")
]
Description = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        "-l",
        help="Read the names of the labels from this dataset.json; by default the one beside the references.",
        show_default=False,
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write the files of scores and statistics into this folder; by default that of the predictions.",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="Compute this metric, or those of a group: overlap (dice, iou and recall, the default), surface "
        "(hd95, nsd_1mm or with another tolerance, assd, boundary_dice_2mm), instance (rq, sq, pq, "
        "small_recall), vertebra (id_rate, centroid_distance), or all. Repeat it for several. Metrics of "
        "other distributions go by their names.",
        metavar="NAME",
        show_default=False,
    ),
]
Resample = Annotated[
    bool,
    typer.Option(
        "--resample",
        help="Resample predictions on other grids to those of their references, by nearest neighbours, "
        "instead of refusing them.",
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        help="Compare the scores with those of another model's predictions in this folder, which were "
        "evaluated before with the same references: the mean difference of each class, its confidence "
        "interval, and a paired test.",
        metavar="FOLDER",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Predict", epilog="For example: autospine evaluate out references")
def evaluate(
    predictions: Predictions,
    references: References,
    description: Description = None,
    output: Scores = None,
    metric: Metrics = None,
    resample: Resample = False,
    against: Against = None,
    report: shared_options.Report = True,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Compare label maps with references: Dice, IoU and recall, or others, per class, case and modality.

    Pairs that cannot be compared are named and left out of every mean, and the exit code is 1.
    """
    for folder, what in ((predictions, "label maps"), (references, "reference label maps")):
        shared_options.check_exists(folder, what)
    if against is not None:
        shared_options.check_exists(against, "scores")

    from autospine.evaluation.evaluate_maps import evaluate_predictions
    from autospine.evaluation.export import write_evaluation
    from autospine.evaluation.metrics import find_metrics
    from autospine.evaluation.paired_comparison import compare_with, write_comparison

    folder = output or predictions
    check_writable(folder)
    metrics = find_metrics(metric or ())
    with cluster_for(scheduler, slurm, folder, predictions, references) as cluster:
        evaluation = evaluate_predictions(
            predictions if cluster is None else predictions.absolute(),
            references if cluster is None else references.absolute(),
            description if cluster is None or description is None else description.absolute(),
            metrics,
            resample=resample,
            leave_out_faults=True,
            cluster=cluster,
        )
        differences = () if against is None else compare_with(evaluation, against)
        learnt = _training_images(predictions, [case.case for case in evaluation.cases])
        evaluation = replace(evaluation, learnt=tuple(learnt))
        write_evaluation(evaluation, folder)
        show_evaluation(evaluation, str(predictions))
        if learnt:
            say(
                f"the model has learnt from {share(len(learnt), len(evaluation.cases), 'case')} "
                f"({listed(learnt)}): the mean says nothing about other images",
                "yellow",
            )
        written = "evaluation and statistics, .csv and .json, evaluation_means.csv and confusion.csv"
        if against is not None:
            write_comparison(differences, against, folder)
            show_differences(differences, f"{predictions} against {against}")
            written = f"{written}, comparison.csv and comparison.json"
        say(f"written: {written}, in {folder}")
        if report:
            report_on(folder, cluster=cluster)
    if evaluation.failed:
        failed, pairs = list(evaluation.failed), len(evaluation.cases) + len(evaluation.failed)
        raise EvaluationError(
            f"{len(failed)} of {pairs} pairs of label maps cannot be compared, and are in no mean: "
            f"{listed(failed, 10)}; mend their files and evaluate again"
        )


def _training_images(predictions: Path, names: Sequence[str]) -> list[str]:
    """Return the cases that the model has learnt from, as far as the record of the predictions knows."""
    from autospine.prediction.case_log import read_record

    try:
        record = read_record(predictions)
    except FormatError:  # the scores are those of the label maps, whoever made them
        return []
    known = {same_name(name) for name, entry in record.items() if entry.training_case is not None}
    return [name for name in names if same_name(name) in known]
