"""The commands from the raw dataset to stored cases, alone and in one."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for, located
from autospine.cli.declared import Given, takes
from autospine.cli.plan_tables import compare_plans, explain_plan, show_plan
from autospine.cli.reporting import report_on
from autospine.cli.screen import say, say_next
from autospine.cli.shared_options import named_dataset
from autospine.core.errors import AutospineError, DatasetError, PlanError, counted, listed
from autospine.dataset.case_parts import CasePart, parse_part
from autospine.storage.trained_models import PLAN, STARTER, STARTER_FILE, named_model
from autospine.storage.workspace import DatasetLocation, Workspace
from autospine.system.hardware import check_device_name, parse_bytes
from autospine.system.log import get_logger
from planners.planning_options import PlanningOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from autospine.cluster.executor import Executor
    from autospine.dataset.raw import Dataset
    from autospine.fingerprint import Fingerprint
    from autospine.plan import DeviceKind, Plan
    from autospine.storage.arrays import ArrayFormat
    from planners.overrides import Overrides

logger = get_logger(__name__)

Measured = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        help="Measure this many cases at the same time; by default one per core, at most 4.",
        show_default=False,
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Print the reason for every decision. Without other options, explain the existing plan, by "
        "default that of the dataset planned last.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Run two training steps, correct the memory estimate by the memory that they take, and plan"
        " again; calibration.json keeps the correction for this device.",
    ),
]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        "--pretrained",
        metavar="MODEL",
        help="Plan the voxel size, patch and network of this model (a folder, an .autospine file or "
        "`starter`), so that `autospine train --pretrained` can begin from it.",
        show_default=False,
    ),
]
ComparedWithStarter = Annotated[
    bool,
    typer.Option(
        "--starter",
        help="Also compare the labels of every training case with the spine that the starter finds in its "
        "image, and name cases whose labels seem reversed, turned or of another case, or whose modality "
        "seems wrong; takes seconds per case.",
    ),
]
PlainArrays = Annotated[
    bool,
    typer.Option(
        "--npy",
        help="Store plain .npy files instead of Blosc2, about twice as large; AutoSpine does so by "
        "itself where Blosc2 cannot be imported. Cases stored in either format are kept.",
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Preprocess the I-th of N parts, while other jobs preprocess the others: every N-th case of the "
        "list sorted by name, from the I-th on.",
        show_default=False,
    ),
]


@app.command(
    "plan-and-preprocess",
    rich_help_panel="Train",
    epilog="For example: autospine plan-and-preprocess -d Dataset001 --memory 8GB",
)
@takes(PlanningOptions, partly=True)
def plan_and_preprocess(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    configuration: shared_options.Configurations = None,
    memory: shared_options.Memory = None,
    *,
    options: Given,
    overrides: shared_options.OverridesFile = None,
    splits: shared_options.Splits = None,
    pretrained: Pretrained = None,
    workers: shared_options.Workers = None,
    device: shared_options.Device = "auto",
    planned_for: shared_options.For = None,
    report: shared_options.Report = True,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Verify and measure a dataset, plan for it, and preprocess its cases.

    This is `verify`, `fingerprint`, `plan` and `preprocess` in one.
    """
    name = named_dataset(dataset, dataset_option, workspace)
    location = located(workspace, scheduler, slurm).find_dataset(name)
    _check(memory, device, planned_for)
    _check_splits(splits)
    fixed = _overrides(overrides, options, pretrained)  # refused before the work, not after
    target = _target(planned_for, device, [memory])
    with cluster_for(scheduler, slurm, location.preprocessed, location.raw) as cluster:
        facts = _fingerprint(location, None, cluster)
        planned = _plan(location, memory, fixed, target, facts=facts, splits=splits)
        if pretrained is None:
            _say_starter(location, planned)
        if report:
            report_on(location.preprocessed)
        _preprocess(
            *(location, planned, configuration, workers),
            dataset=facts[0],
            pretrained=pretrained,
            cluster=cluster,
        )


@app.command(rich_help_panel="Train, step by step")
def verify(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    *,
    starter: ComparedWithStarter = False,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Read every case of a raw dataset and list every fault at once.

    Repairs, decisions and oddities are listed as well.
    """
    name = named_dataset(dataset, dataset_option, workspace)
    location = located(workspace, scheduler, slurm).find_dataset(name)

    from autospine.pipeline.measuring import check

    with cluster_for(scheduler, slurm, location.workspace.root, location.raw) as cluster:
        report = check(location, cluster)
    report.raise_if_bad()
    if starter:
        _compare_with_starter(report.dataset)
    say(f"{location.name} is sound: {len(report.dataset.cases)} training cases")
    say_next("plan-and-preprocess", "-d", location.name, *location.workspace.option)


@app.command(rich_help_panel="Train, step by step")
def fingerprint(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    workers: Measured = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Verify and measure a dataset: spacings, sizes, intensities, classes, duplicates.

    `fingerprint.json` keeps the measurements; they are made anew only if the dataset has changed.
    """
    name = named_dataset(dataset, dataset_option, workspace)
    location = located(workspace, scheduler, slurm).find_dataset(name)
    with cluster_for(scheduler, slurm, location.preprocessed, location.raw) as cluster:
        _fingerprint(location, workers, cluster)


@app.command(rich_help_panel="Train, step by step")
@takes(PlanningOptions, partly=True)
def plan(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    memory: shared_options.Memories = None,
    *,
    options: Given,
    overrides: shared_options.OverridesFile = None,
    splits: shared_options.Splits = None,
    pretrained: Pretrained = None,
    explain: Explain = False,
    calibrate: Calibrate = False,
    device: shared_options.Device = "auto",
    planned_for: shared_options.For = None,
) -> None:
    """Plan spacing, patch size, network and training for a dataset; write plan.json and folds.json.

    A dataset without a fingerprint is measured first. A folds.json that fits the dataset is kept; one that
    does not becomes folds.json.old, as another plan becomes plan.json.old. With several --memory, plans are
    shown side by side, and none is written.
    """
    amounts = memory or []
    chosen = options or overrides or splits or pretrained or amounts or calibrate or planned_for
    if explain and not chosen and device == "auto":
        from autospine.pipeline.configuration_cost import known_costs
        from autospine.pipeline.planned_dataset import read_plan

        wanted = shared_options.either(dataset, dataset_option, "--dataset / -d")
        location = Workspace.locate(workspace).dataset_or_last(wanted)
        planned = read_plan(location)
        explain_plan(planned, known_costs(location, planned))
        return
    location = Workspace.locate(workspace).find_dataset(named_dataset(dataset, dataset_option, workspace))
    _check_splits(splits)
    for amount in amounts:
        _check(amount, device, planned_for)
    _check(None, device, planned_for)
    if calibrate and len(amounts) > 1:
        raise PlanError(f"expected one --memory with --calibrate, found {len(amounts)}; leave out the others")
    fixed = _overrides(overrides, options, pretrained)
    if len(amounts) < 2:
        only = amounts[0] if amounts else None
        target = _target(planned_for, device, [only])
        planned = _plan(location, only, fixed, target, explain=explain, calibrate=calibrate, splits=splits)
        if pretrained is None:
            _say_starter(location, planned)
        say_next("preprocess", "-d", location.name, *location.workspace.option)
        return

    from autospine.pipeline.planning import compare_budgets

    target = _target(planned_for, device, amounts)
    plans = compare_budgets(location, amounts, device=target, overrides=fixed)
    if explain:
        for planned in plans:
            explain_plan(planned, {})
    compare_plans(plans)
    say("nothing is written: choose one --memory")


@app.command(rich_help_panel="Train, step by step")
def preprocess(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    configuration: shared_options.Configurations = None,
    npy: PlainArrays = False,
    workers: shared_options.Workers = None,
    part: Part = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Crop, resample and store the cases of a planned dataset.

    Cases that are stored already, from the same files with the same settings, are kept. `autospine train`
    preprocesses cases before it starts, so that a changed file or plan is noticed.
    """
    from autospine.pipeline.planned_dataset import read_plan

    own = None if part is None else parse_part(part)
    name = named_dataset(dataset, dataset_option, workspace)
    location = located(workspace, scheduler, slurm).find_dataset(name)
    planned = read_plan(location)
    with cluster_for(scheduler, slurm, location.preprocessed, location.raw) as cluster:
        _preprocess(location, planned, configuration, workers, npy=npy, part=own, cluster=cluster)


def _compare_with_starter(dataset: "Dataset") -> None:
    """Name the cases whose labels do not lie where the starter finds the spine."""
    from autospine.dataset.checks import per_cause
    from autospine.pipeline.label_placement import misplaced_labels
    from autospine.system.devices import choose_device

    notes = misplaced_labels(dataset, choose_device("auto"))
    for note in per_cause(notes):
        say(note, "yellow")
    if not notes:
        say(f"in all {counted(len(dataset.cases), 'case')} the labels lie where the starter finds the spine")


def _check(memory: str | None, device: str, planned_for: str | None) -> None:
    """Refuse an amount of memory, or a name or kind of device, that cannot be."""
    if memory is not None:
        parse_bytes(memory)
    if planned_for not in (None, "gpu", "cpu"):
        raise PlanError(f"expected --for gpu or --for cpu, found {planned_for!r}")
    check_device_name(device)


def _check_splits(splits: Path | None) -> None:
    """Refuse a file of splits that is not there; whether it fits the dataset is checked when that is read."""
    if splits is not None and not splits.is_file():
        raise DatasetError(f"expected nnU-Net's splits_final.json at {splits}, found none; check --splits")


def _target(planned_for: str | None, device: str, amounts: "Sequence[str | None]") -> "torch.device | None":
    """Return the device to plan for, None for a GPU elsewhere; refuse one whose memory nobody has told."""
    from autospine.pipeline.planning import choose_planned_device
    from autospine.system.cards import memory_budget

    try:
        target = choose_planned_device(cast("DeviceKind | None", planned_for), device)
    except AutospineError as error:
        if not device.startswith("cuda") or planned_for is not None:
            raise
        raise PlanError(f"{error}; for a GPU elsewhere, give --for gpu --memory 24GB") from None
    for amount in amounts:
        memory_budget(target, amount)
    return target


def _fingerprint(
    location: DatasetLocation, workers: int | None, cluster: "Executor | None" = None
) -> "tuple[Dataset, Fingerprint]":
    from autospine.cli.fingerprint_tables import show_fingerprint
    from autospine.pipeline.measuring import FINGERPRINT, fingerprint

    dataset, measured = fingerprint(location, workers, cluster)
    show_fingerprint(measured)
    say(f"written: {location.preprocessed / FINGERPRINT}")
    return dataset, measured


def _plan(
    location: DatasetLocation,
    memory: str | None,
    overrides: "Overrides",
    device: "torch.device | None",
    *,
    explain: bool = False,
    calibrate: bool = False,
    facts: "tuple[Dataset, Fingerprint] | None" = None,
    splits: Path | None = None,
) -> "Plan":
    from autospine.pipeline.costs import measure_costs
    from autospine.pipeline.planning import plan

    _warn_of_trainings(location)
    planned = plan(
        location,
        device=device,
        memory=memory,
        overrides=overrides,
        measure_memory=calibrate,
        facts=facts,
        splits=splits,
    )
    costs = measure_costs(location, planned, device)
    if explain:
        explain_plan(planned, costs)
    else:
        show_plan(planned, costs)
        why = ("autospine", "plan", "-d", location.name, *location.workspace.option, "--explain")
        say(f"why: {shlex.join(why)}", "dim")
    say(f"written: {location.preprocessed / PLAN}")
    return planned


def _warn_of_trainings(location: DatasetLocation) -> None:
    """Warn if folds are being trained by the plan that is about to be replaced."""
    from autospine.storage.locks import is_held
    from trainers.fold_run import TRAINING_LOCK

    held = [path.parent for path in location.results.glob(f"*/fold_*/{TRAINING_LOCK}") if is_held(path)]
    if held:
        logger.warning(
            "training goes on by the plan that there was in %s; wait for its end before you preprocess anew",
            listed([str(path) for path in sorted(held)]),
        )


def _say_starter(location: DatasetLocation, planned: "Plan") -> None:
    """Say that a training may begin from the starter, where that knows a class of the dataset."""
    from autospine.models.model_folder import starter_class

    known = dict.fromkeys(filter(None, map(starter_class, planned.labels.names)))
    if known and len(planned.channels) == 1 and STARTER_FILE.is_file():
        command = ("autospine", "plan-and-preprocess", "-d", location.name, *location.workspace.option)
        say(
            f"to begin from the starter ({', '.join(known)}): "
            f"{shlex.join((*command, '--pretrained', STARTER))}",
            "dim",
        )


def _preprocess(
    location: DatasetLocation,
    planned: "Plan",
    names: list[str] | None,
    workers: int | None,
    *,
    npy: bool = False,
    dataset: "Dataset | None" = None,
    pretrained: Path | None = None,
    part: CasePart | None = None,
    cluster: "Executor | None" = None,
) -> None:
    names = names or ["0"]
    chosen = [planned.configuration(name) for name in names]

    from autospine.dataset.raw import load_dataset
    from autospine.pipeline.planned_dataset import FOLDS_FILE
    from autospine.pipeline.training import preprocess

    dataset = dataset or load_dataset(location.raw)
    for configuration in chosen:
        kind: ArrayFormat = "npy" if npy else "blosc2"
        stored = preprocess(location, dataset, planned, configuration, workers, kind, part, cluster)
        folder = location.preprocessed / configuration.cases
        whole = counted(len(dataset.cases), "case")
        own = "" if part is None else f"part {part} of {whole}: "
        say(f"{own}{counted(len(stored), 'case')} preprocessed in {folder}")
    folds = "all" if (location.preprocessed / FOLDS_FILE).is_file() else "full"
    start = () if pretrained is None else ("--pretrained", str(pretrained))
    note = "" if part is None else ", when all parts are done"
    say_next("train", names[0], "--fold", folds, *start, *location.workspace.option, note=note)


def _overrides(file: Path | None, given: Given, pretrained: Path | None) -> "Overrides":
    """The options that were given; for the others the model's values, then the file's overrides."""
    from autospine.core.defaults import DEFAULT_LOSS
    from planners.overrides import Overrides, read_overrides

    overrides = Overrides() if file is None else read_overrides(file)
    if pretrained is not None:
        from autospine.models.archive import opened_model

        path = named_model(pretrained)
        shared_options.check_exists(path, "a trained model")
        with opened_model(path) as opened:
            overrides = overrides.like(opened.configuration)
    overrides = replace(overrides, **given)
    if overrides.loss != DEFAULT_LOSS:
        from trainers.losses import check_loss

        check_loss(overrides.loss)
    return overrides
