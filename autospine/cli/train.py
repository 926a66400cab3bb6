"""`autospine train`."""

import time
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for, located
from autospine.cli.declared import takes
from autospine.cli.reporting import report_on
from autospine.cli.screen import say, say_next, show_evaluation
from autospine.core.errors import TrainingError, counted
from autospine.storage.trained_models import FULL, STARTER_FILE, fold_names, named_model
from autospine.system.hardware import check_device_name
from trainers.training_options import TrainingOptions

if TYPE_CHECKING:
    from autospine.cluster.dask_cluster import DaskCluster
    from autospine.evaluation.scores import Evaluation
    from autospine.pipeline.planned_dataset import PlannedDataset
    from autospine.pipeline.training import Project

ConfigurationArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[CONFIGURATION]",
        help="Train this configuration, by index or name; by default 0, the recommended one.",
        show_default=False,
    ),
]
ConfigurationOption = Annotated[
    str | None,
    typer.Option("--configuration", "-c", help="The same as CONFIGURATION.", show_default=False),
]
FoldName = Annotated[
    list[str] | None,
    typer.Option(
        "--fold",
        "-f",
        metavar="FOLD",
        help="Train each of the five folds (`all`, the default), one of them (`3`), or one model on "
        "every case (`full`, which nnU-Net calls `all`).",
        show_default=False,
    ),
]
START = "a trained model, or weights of `autospine model import-weights`"
"""Content that `--pretrained` names."""

MOST_PICTURED = 40
"""Most held-out cases that the report draws by itself, about a second each; `autospine report` draws all."""

MaxMinutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Finish the whole command, validation included, in this many minutes; the schedule is fitted to "
        "it.",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Train", epilog="For example: autospine train 0 --fold all --max-minutes 60")
@takes(TrainingOptions)
def train(
    configuration: ConfigurationArgument = None,
    configuration_option: ConfigurationOption = None,
    folds: FoldName = None,
    dataset: shared_options.OptionalDataset = None,
    workspace: shared_options.Workspace = None,
    max_minutes: MaxMinutes = None,
    report: shared_options.Report = True,
    *,
    options: TrainingOptions,
    device: shared_options.Device = "auto",
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Train folds of a planned dataset and validate each on its held-out cases.

    Complete folds are kept, and an interrupted one is resumed.
    """
    began = time.monotonic()  # before PyTorch is imported, which takes long on a busy machine
    fold, *more = folds or ["all"]
    if more:
        raise TrainingError(
            f"expected one --fold, found {', '.join((fold, *more))}; run the command with --fold {fold}, "
            f"then with {', '.join(f'--fold {name}' for name in more)}, or once with --fold all"
        )
    if max_minutes is not None and not isfinite(max_minutes):
        raise TrainingError(f"expected a number of --max-minutes, found {max_minutes}; leave it out")
    location = located(workspace, scheduler, slurm).dataset_or_last(dataset)

    from autospine.dataset.splits import ALL
    from autospine.pipeline.planned_dataset import check_fold, open_planned

    chosen = shared_options.either(configuration, configuration_option, "--configuration / -c")
    planned = open_planned(location, chosen or "0")
    check_fold(fold, planned.fold_names)
    options.check_held_out(fold, labelled=fold != FULL)
    check_device_name(device)
    if options.pretrained is not None:
        start = named_model(options.pretrained)
        shared_options.check_exists(start, START)
        options = replace(options, pretrained=start.absolute())
    read = [location.raw, location.preprocessed]
    if options.pretrained not in (None, STARTER_FILE):
        read.append(options.pretrained)
    with cluster_for(scheduler, slurm, location.results, *read) as cluster:
        if cluster is not None:
            _train_on_cluster(cluster, planned, fold, options, device, max_minutes, report)
            return

    from autospine.pipeline.training import (
        choose_settings,
        open_project,
        train,
        warn_of_another_device,
        warn_of_slow_convolutions,
    )
    from autospine.system.devices import cudnn_version, describe
    from trainers import distributed

    with distributed.joined(device) as where:
        settings = choose_settings(options, planned, fold, device=where, name=device)
        with distributed.one_first():
            project = open_project(planned, fold)
        processes, gpus = distributed.size(), len(settings.devices)
        say(
            f"training {location.name}, configuration {planned.configuration.name}, fold {fold}, "
            f"on {describe(where)}"
            + (f", {processes} processes, each with the planned batch" if processes > 1 else "")
            + (f", a fold on each of {gpus} GPUs" if gpus > 1 and fold == ALL else "")
        )
        warn_of_another_device(planned, where)
        warn_of_slow_convolutions(planned.configuration, where, cudnn_version())
        evaluation = train(project, fold, settings, minutes=max_minutes, began=began)
        if report and distributed.leads():
            report_on(location.results / planned.configuration.name, most_pictured=MOST_PICTURED)
        _say_what_is_next(project, fold, evaluation)


def _train_on_cluster(
    cluster: "DaskCluster",
    planned: "PlannedDataset",
    fold: str,
    options: TrainingOptions,
    device: str,
    minutes: float | None,
    report: bool,
) -> None:
    from autospine.pipeline.cluster_training import train_folds_on_cluster
    from autospine.pipeline.training import open_project

    project = open_project(planned, fold)
    where = f"{counted(cluster.workers, 'worker')} of a cluster"
    name = planned.configuration.name
    say(f"training {planned.location.name}, configuration {name}, fold {fold}, on {where}")
    evaluation = train_folds_on_cluster(project, planned, fold, options, cluster, device, minutes)
    if report:
        report_on(planned.location.results / name, most_pictured=MOST_PICTURED, cluster=cluster)
    _say_what_is_next(project, fold, evaluation)


def _say_what_is_next(project: "Project", fold: str, evaluation: "Evaluation | None") -> None:
    """Show the scores, the model, and the commands that take it."""
    from autospine.pipeline.training import comparable

    name, chosen = project.location.name, project.configuration.name
    if evaluation is not None and fold != FULL:
        show_evaluation(evaluation, f"{name}, {chosen}, cross-validation before post-processing and naming")
    folder = project.location.results / chosen
    say(f"model: {folder}")
    others = fold == FULL and fold_names(folder) != (FULL,)
    place = project.location.workspace.option
    say_next("predict", "-i", "IMAGES", "-o", "OUTPUT", *(("-f", FULL) if others else ()), *place)
    models = () if evaluation is None or fold == FULL else comparable(project.location, project.split)
    if chosen in models and len(models) > 1:
        say(f"or compare {', '.join(models)} first: autospine compare -d {name}")
