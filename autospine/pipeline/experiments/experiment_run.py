"""The run of an experiment: every design trained alike over seeds and folds, and scored case by case.

What has been trained is kept, so that the same command goes on after an interruption.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from autospine.cluster.dask_cluster import DaskCluster
from autospine.core.errors import TrainingError, counted
from autospine.dataset.raw import Case
from autospine.dataset.splits import ALL, Fold
from autospine.evaluation.boundary_errors import BoundaryErrors, boundary_errors
from autospine.evaluation.evaluate_maps import evaluate_folder
from autospine.evaluation.held_out import validation_folder
from autospine.evaluation.scores import CaseScores, Evaluation
from autospine.io.images import read_labels, read_volume
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings
from autospine.pipeline.cluster_training import FoldTraining, train_on_cluster
from autospine.pipeline.costs import measure_costs
from autospine.pipeline.experiments.designs import Experiment, for_one_case
from autospine.pipeline.experiments.protocol import (
    FORMAT_VERSION,
    ExperimentProtocol,
    read_protocol,
    settle_protocol,
)
from autospine.pipeline.experiments.results import METRICS, VariantResult
from autospine.pipeline.experiments.variants import ComparedDesign
from autospine.pipeline.measuring import fresh_fingerprint
from autospine.pipeline.planned_dataset import PlannedDataset
from autospine.pipeline.training import Project, choose_settings, open_project, preprocess, train
from autospine.plan import build_network
from autospine.storage.digest import digest_of
from autospine.storage.file_names import folder_to_write, path_below
from autospine.storage.trained_models import fold_folder
from autospine.storage.workspace import DatasetLocation
from autospine.system.log import get_logger, track
from planners.calibration_factor import predict
from trainers.metrics_log import read_rows
from trainers.trained_on import plan_parts
from trainers.training_options import TrainingOptions

logger = get_logger(__name__)

EXPERIMENTS_FOLDER = "experiments"
"""Folder of a dataset's experiments, in its results."""

DEFAULT_MINUTES = 50.0
"""Time that the steps are chosen for where neither steps nor minutes are given: with validation, an hour."""

FEWEST_STEPS = 20
"""Fewest steps that are chosen so: a training below them shows nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingExtent:
    """How much is trained: the user's choice, None for what was chosen before or is by default.

    Raises:
        TrainingError: If steps and minutes are both limited.
    """

    seeds: int | None = None
    """Number of seeds, from 0."""

    fold: str | None = None
    """`all`, or the name of one fold."""

    steps: int | None = None
    """Optimiser steps of every training."""

    minutes: float | None = None
    """Minutes for the whole experiment, shared equally by its variants and seeds."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise TrainingError(
                "expected --steps (equal steps) or --minutes (equal minutes), found both; leave one out"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedExperiment:
    """The results of an experiment, with what they were made by."""

    experiment: Experiment
    protocol: ExperimentProtocol
    folder: Path
    """Folder of its trainings and results."""

    results: tuple[VariantResult, ...]
    """Results of each design in order; the first is what the others are compared with."""


def experiment_folder(location: DatasetLocation, name: str) -> Path:
    """Return the folder of an experiment; it need not exist."""
    return folder_to_write(location.results, EXPERIMENTS_FOLDER, name)


def run_experiment(
    planned: PlannedDataset,
    experiment: Experiment,
    extent: TrainingExtent,
    *,
    device: torch.device,
    device_name: str,
    cluster: DaskCluster | None = None,
) -> FinishedExperiment:
    """Train every design that is not trained yet, and score all of them.

    Args:
        planned: The dataset, with the configuration that is changed.
        experiment: The experiment.
        extent: How much is trained.
        device: Device of the trainings.
        device_name: The device as the user named it.
        cluster: Its workers train the folds of all designs side by side; None to train them here in turn.

    Raises:
        PlanError: If the experiment does not apply to the configuration's network.
        TrainingError: If the folder has trainings of another protocol.
        NoTimeLeftError: If the minutes are too few for a step of every training.
    """
    project = open_project(planned, ALL)
    if experiment.one_case:
        project = for_one_case(project)
    variants = experiment.variants(project)
    if variants[0].split is not None:  # all designs have as many folds, whose names are the same
        project = replace(project, split=variants[0].split)
    cases = _of_measured_modality(project) if experiment.grouped_by == "modality" else project.dataset.cases
    folder = experiment_folder(project.location, experiment.name)
    protocol = _protocol(project, experiment, variants, extent, folder, device)
    settle_protocol(folder, protocol)
    logger.info(
        "%s: %s of %s, seeds %s, folds %s; %s",
        experiment.name,
        *(counted(protocol.trainings, "training"), counted(len(variants), "design")),
        *(", ".join(map(str, protocol.seeds)), ", ".join(protocol.folds), protocol.limit),
    )
    if cluster is not None:
        _train_on_workers(project, planned, variants, protocol, folder, device_name, cluster)
    results = []
    for number, variant in enumerate(variants, start=1):
        own = _with_design(project, variant)
        evaluations = []
        for seed in protocol.seeds:
            logger.info("design %d of %d, seed %d: %s", number, len(variants), seed, variant.change)
            options = _options(protocol, seed)
            fold = ALL if len(protocol.folds) > 1 else protocol.folds[0]
            settings = choose_settings(
                options,
                replace(planned, plan=own.plan, configuration=own.configuration),
                fold,
                device=device,
                name=device_name,
            )
            model = _model(folder, variant, seed)
            train(own, fold, settings, minutes=protocol.minutes, folder=model)
            evaluations.append(_evaluated(own, cases, model, own.folds(fold)))
        models = [_model(folder, variant, seed) for seed in protocol.seeds]
        result = _result(variant, evaluations, models, protocol.folds)
        if experiment.at_boundaries:
            folds = own.folds(fold)
            found = [errors for model in models for errors in _boundary_errors(own, model, folds)]
            result = replace(result, boundaries=tuple(found))
        results.append(result)
    return FinishedExperiment(experiment=experiment, protocol=protocol, folder=folder, results=tuple(results))


def _with_design(project: Project, variant: ComparedDesign) -> Project:
    """Return what is trained of a design."""
    return replace(
        project,
        plan=variant.plan,
        configuration=variant.configuration,
        split=variant.split or project.split,
    )


def _train_on_workers(
    project: Project,
    planned: PlannedDataset,
    variants: Sequence[ComparedDesign],
    protocol: ExperimentProtocol,
    folder: Path,
    device: str,
    cluster: DaskCluster,
) -> None:
    """Train every fold of every design and seed on the workers of a cluster."""
    trainings = []
    for variant in variants:
        own = _with_design(project, variant)
        preprocess(own.location, own.dataset, own.plan, own.configuration, cluster=cluster)
        trainings += [
            FoldTraining(
                project=own,
                planned=replace(planned, plan=own.plan, configuration=own.configuration),
                fold=fold,
                options=_options(protocol, seed),
                device=device,
                minutes=None if protocol.minutes is None else protocol.minutes / len(protocol.folds),
                folder=_model(folder, variant, seed),
                name=f"{variant.name}, seed {seed}, fold {fold}",
            )
            for seed in protocol.seeds
            for fold in protocol.folds
        ]
    train_on_cluster(trainings, cluster)


def _protocol(
    project: Project,
    experiment: Experiment,
    variants: Sequence[ComparedDesign],
    extent: TrainingExtent,
    folder: Path,
    device: torch.device,
) -> ExperimentProtocol:
    """Return the protocol: what the user asks for, else what the experiment began with, else the default."""
    known = read_protocol(folder)
    names = tuple(fold.name for fold in project.split)
    if extent.fold is not None:
        folds = tuple(fold.name for fold in project.folds(extent.fold))
    else:
        folds = known.folds if known else names
    seeds = tuple(range(extent.seeds)) if extent.seeds else known.seeds if known else (0,)
    groups = len(variants) * len(seeds)
    steps, minutes = extent.steps, None if extent.minutes is None else extent.minutes / groups
    if steps is None and minutes is None:
        steps, minutes = (known.steps, known.minutes) if known else (None, None)
    if steps is None and minutes is None:
        steps = _affordable_steps(project, groups * len(folds), device)
    return ExperimentProtocol(
        format_version=FORMAT_VERSION,
        experiment=experiment.name,
        dataset=project.location.name,
        configuration=project.configuration.name,
        designs={
            each.name: digest_of(part.encode() for part in (*_plan_parts(each), *_split_parts(each)))
            for each in variants
        },
        seeds=seeds,
        folds=folds,
        steps=steps,
        minutes=minutes,
    )


def _plan_parts(variant: ComparedDesign) -> Iterable[str]:
    return plan_parts(variant.plan, variant.configuration).values()


def _split_parts(variant: ComparedDesign) -> Iterable[str]:
    return () if variant.split is None else (repr(fold.validation) for fold in variant.split)


def _affordable_steps(project: Project, trainings: int, device: torch.device) -> int:
    """Return the steps of each training with which all of them together take `DEFAULT_MINUTES`."""
    # The whole plan, whose costs are known since it was made: those of other configurations stay.
    cost = measure_costs(project.location, project.plan, device)[project.configuration.name]
    if cost.hours is None:
        raise TrainingError(
            "expected to time a training step for the number of steps, found that none can be taken; give "
            "--steps"
        )
    training = project.configuration.training
    seconds = 3600 * cost.hours / training.steps
    return max(FEWEST_STEPS, int(60 * DEFAULT_MINUTES / (trainings * seconds)))


def measured_labels_dice(planned: PlannedDataset, device: torch.device) -> float | None:
    """Return the Dice that the configuration's voxel size allows; None where no class occurs."""
    return measure_costs(planned.location, planned.plan, device)[planned.configuration.name].labels_dice


def _options(protocol: ExperimentProtocol, seed: int) -> TrainingOptions:
    if protocol.steps is None:
        return TrainingOptions(seed=seed)
    epochs, iterations = protocol.epochs_and_iterations
    return TrainingOptions(seed=seed, epochs=epochs, iterations=iterations)


def _model(folder: Path, variant: ComparedDesign, seed: int) -> Path:
    return folder_to_write(folder, variant.name, f"seed_{seed}")


def _of_measured_modality(project: Project) -> tuple[Case, ...]:
    """Return the cases with the modality of the fingerprint, which is guessed where none is stated."""
    measured = fresh_fingerprint(project.location, project.dataset)
    modalities = {facts.name: facts.modality for facts in measured.cases}
    return tuple(replace(case, modality=modalities[case.name]) for case in project.dataset.cases)


def _evaluated(project: Project, known: Sequence[Case], model: Path, folds: Sequence[Fold]) -> Evaluation:
    """Score the held-out predictions of all folds of a model."""
    cases: list[CaseScores] = []
    for fold in folds:
        part = evaluate_folder(
            validation_folder(model, fold.name),
            project.dataset.folder / "labelsTr",
            project.plan.labels,
            known,
            METRICS,
        )
        cases += [case for case in part.cases if case.case in fold.validation]
    return Evaluation(
        classes=project.plan.labels.names, cases=tuple(sorted(cases, key=lambda case: case.case))
    )


def _result(
    variant: ComparedDesign, evaluations: Sequence[Evaluation], models: Sequence[Path], folds: Sequence[str]
) -> VariantResult:
    with torch.device("meta"):
        network = build_network(variant.plan, variant.configuration)
    logs = [read_rows(fold_folder(model, fold)) for model in models for fold in folds]
    paces = [row["seconds"] / (row["step"] - before) for rows in logs for row, before in _with_steps(rows)]
    last = [rows[-1] for rows in logs]
    return VariantResult(
        variant=variant,
        evaluations=tuple(evaluations),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds_per_step=median(paces),
        memory_bytes=predict(variant.plan, variant.configuration, gpu=variant.plan.device != "cpu").total,
        loss=mean(row["loss"] for row in last),
        readings={name: _mean_lists([row[name] for row in last]) for name in _mechanisms(variant)},
    )


def _boundary_errors(
    project: Project, model: Path, folds: Sequence[Fold]
) -> Iterator[tuple[str, BoundaryErrors]]:
    """Yield the subject of each held-out case, and its errors at boundaries in the first channel."""
    of_fold = {name: fold for fold in folds for name in fold.validation}
    labels = project.plan.labels
    for case in track(
        [case for case in project.dataset.cases if case.name in of_fold], "looking at boundaries"
    ):
        assert case.labels is not None  # it is a training case
        volume = read_volume(case.images)
        folder = validation_folder(model, of_fold[case.name].name)
        predicted = read_labels(path_below(folder, f"{case.name}{project.plan.file_ending}"))
        true = read_labels(case.labels, labels)
        prediction, reference = (labels.encode(each.turned_to(volume.grid)[0]) for each in (predicted, true))
        found = boundary_errors(volume.array[0], prediction, reference, volume.grid.spacing_mm)
        if found is not None:
            yield case.subject, found


def _mechanisms(variant: ComparedDesign) -> tuple[str, ...]:
    """Return the keys of `metrics.jsonl` that say something of the mechanisms that a network has."""
    network = variant.configuration.network
    if not isinstance(network, SwinPlan):
        return ()
    gamma = ("gamma",) if isinstance(network.attention, AttentionSettings) else ()
    return (*gamma, "fusion_weights") if network.fusion is not None else gamma


def _with_steps(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each epoch with the number of steps before it."""
    return zip(rows, (0, *(row["step"] for row in rows)), strict=False)


def _mean_lists(lists: Sequence[Sequence[Any]]) -> list[float]:
    return [round(mean(values), 6) for values in zip(*lists, strict=True)]
