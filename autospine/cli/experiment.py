"""`autospine experiment`."""

from enum import StrEnum
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for, located
from autospine.cli.reporting import report_on
from autospine.cli.screen import say
from autospine.system.hardware import check_device_name


class ExperimentName(StrEnum):
    """The experiments, as `autospine.pipeline.experiments.designs` has them."""

    OVERFIT = "overfit"
    ABLATION = "ablation"
    LAMBDA = "lambda"
    BOUNDARY = "boundary"
    COMPARE = "compare"
    MODALITY = "modality"
    TRANSFER = "transfer"
    EFFICIENCY = "efficiency"


Name = Annotated[
    ExperimentName,
    typer.Argument(
        help="Answer one question. overfit: one case learnt by heart. ablation: fusion and attention taken "
        "out one by one. "
        "lambda: cross-entropy against Dice. boundary: errors at sharp and blurred boundaries, against "
        "plain Swin UNETR. compare: every built-in network. modality: the ablation in CT and in MR. "
        "transfer: sites left out of training. efficiency: accuracy against time and memory.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help="Train every design with this many seeds; by default with 1.",
        show_default=False,
    ),
]
FoldChoice = Annotated[
    str | None,
    typer.Option(
        "--fold",
        "-f",
        metavar="FOLD",
        help="Train on this fold, or on `all`; by default on all.",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Train every design for this many optimiser steps. By default as many as let all trainings end "
        "within an hour.",
        show_default=False,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=1e6,
        help="Finish the whole experiment in this many minutes, which the designs share equally, instead of "
        "taking equal steps.",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Train", epilog="For example: autospine experiment ablation -d 1 --seeds 3")
def experiment(
    name: Name,
    dataset: shared_options.OptionalDataset = None,
    configuration: Annotated[
        str | None,
        typer.Option(
            "--configuration",
            "-c",
            help="Change this configuration, by index or name; by default 0, the recommended one.",
            show_default=False,
        ),
    ] = None,
    seeds: Seeds = None,
    fold: FoldChoice = None,
    steps: Steps = None,
    minutes: Minutes = None,
    workspace: shared_options.Workspace = None,
    device: shared_options.Device = "auto",
    report: shared_options.Report = True,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Train designs of a planned dataset alike, compare them case by case, and say what that shows.

    Everything lies in results/DATASET/experiments/NAME. The same command goes on after an interruption.
    """
    location = located(workspace, scheduler, slurm).dataset_or_last(dataset)
    check_device_name(device)

    from autospine.pipeline.planned_dataset import check_fold, open_planned

    planned = open_planned(location, configuration or "0")
    if fold is not None:
        check_fold(fold, planned.fold_names)

    from autospine.pipeline.experiments.designs import EXPERIMENTS
    from autospine.pipeline.experiments.experiment_files import experiment_files, write_experiment
    from autospine.pipeline.experiments.experiment_run import (
        TrainingExtent,
        measured_labels_dice,
        run_experiment,
    )
    from autospine.pipeline.experiments.verdicts import judge
    from autospine.system.devices import choose_device

    elsewhere = scheduler is not None or slurm is not None
    if elsewhere and steps is None and minutes is None:
        raise typer.BadParameter(
            "give one of them: the speed of the workers is not known here", param_hint="--steps / --minutes"
        )
    where = choose_device("cpu" if elsewhere else device)
    extent = TrainingExtent(seeds=seeds, fold=fold, steps=steps, minutes=minutes)
    chosen = EXPERIMENTS[name.value]
    read = (location.raw, location.preprocessed)
    with cluster_for(scheduler, slurm, location.results, *read) as cluster:
        finished = run_experiment(planned, chosen, extent, device=where, device_name=device, cluster=cluster)
        allowed = measured_labels_dice(planned, where) if chosen.one_case else None
        verdict = judge(chosen.name, finished.results, allowed)
        write_experiment(finished, verdict, where)
        say(chosen.question)
        for sentence in verdict:
            say(f"- {sentence}")
        page, *others = experiment_files(finished.folder)
        say(f"written: {page}, and {', '.join(path.name for path in others)} beside it")
        if report:
            report_on(finished.folder, cluster=cluster)
