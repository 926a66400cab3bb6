"""Commands from the raw dataset to stored cases."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import compare_plans, explain_plan, say, show_plan

if TYPE_CHECKING:
    from autospine.storage.workspace import DatasetLocation
    from planners.overrides import Overrides


Measured = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        help="Cases measured at the same time; by default one per core, at most 4.",
        show_default=False,
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Print every decision with the rule and the facts behind it; alone, those of the plan that "
        "is there.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Run two training steps, correct the memory estimate by what they take, and plan again.",
    ),
]
PlainArrays = Annotated[
    bool, typer.Option("--npy", help="Store plain .npy files instead of Blosc2, about twice as large.")
]


@app.command(
    "plan-and-preprocess",
    rich_help_panel="Train",
    epilog="For example: autospine plan-and-preprocess -d Dataset001 --memory 8GB",
)
def plan_and_preprocess(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    configuration: options.Configurations = None,
    memory: options.Memory = None,
    spacing: options.Spacing = None,
    patch: options.Patch = None,
    feature_size: options.FeatureSize = None,
    networks: options.Networks = None,
    attention: options.Attention = None,
    adaptive_stages: options.AdaptiveStages = None,
    fusion_weighting: options.FusionWeighting = None,
    fusion_placement: options.FusionPlacement = None,
    v2_blocks: options.V2Blocks = None,
    checkpointing: options.Checkpointing = None,
    overrides: options.OverridesFile = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
) -> None:
    """Verify and measure a dataset, plan for it, and preprocess its cases."""
    from autospine.storage.workspace import Workspace
    from autospine.system.devices import choose_device
    from autospine.system.hardware import parse_bytes

    # Wishes are checked before the work, not after.
    if memory is not None:
        parse_bytes(memory)
    choose_device(device)
    wishes = _wishes(
        overrides,
        spacing_mm=spacing,
        patch_size=patch,
        feature_size=feature_size,
        networks=networks,
        attention=attention,
        adaptive_stages=_stages(adaptive_stages),
        fusion_weighting=fusion_weighting,
        fusion_placement=fusion_placement,
        v2_blocks=v2_blocks,
        checkpointing=checkpointing,
    )
    location = Workspace.locate(workspace).find_dataset(dataset)
    fingerprint(dataset, workspace)
    _plan(location, memory, wishes, device)
    _preprocess(location, configuration, workers)


@app.command(rich_help_panel="Train, step by step")
def verify(dataset: options.DatasetName, workspace: options.Workspace = None) -> None:
    """List every fault of a raw dataset at once."""
    from autospine import pipeline
    from autospine.storage.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    report = pipeline.check(location)
    report.raise_if_bad()
    say(f"{location.name} is sound: {len(report.dataset.cases)} training cases")
    say(f"next: autospine plan-and-preprocess -d {location.name}")


@app.command(rich_help_panel="Train, step by step")
def fingerprint(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    workers: Measured = None,
) -> None:
    """Verify and measure a dataset: spacings, sizes, intensities, classes, duplicates."""
    from autospine import pipeline
    from autospine.cli.screen import show_fingerprint
    from autospine.storage.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    _, measured = pipeline.fingerprint(location, workers)
    show_fingerprint(measured)
    say(f"written: {location.preprocessed / pipeline.FINGERPRINT}")


@app.command(rich_help_panel="Train, step by step")
def plan(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    memory: options.Memories = None,
    spacing: options.Spacing = None,
    patch: options.Patch = None,
    feature_size: options.FeatureSize = None,
    networks: options.Networks = None,
    attention: options.Attention = None,
    adaptive_stages: options.AdaptiveStages = None,
    fusion_weighting: options.FusionWeighting = None,
    fusion_placement: options.FusionPlacement = None,
    v2_blocks: options.V2Blocks = None,
    checkpointing: options.Checkpointing = None,
    overrides: options.OverridesFile = None,
    explain: Explain = False,
    calibrate: Calibrate = False,
    device: options.Device = "auto",
) -> None:
    """Decide spacing, patch, windows, fusion kernels and the rest.

    With several --memory the plans are shown side by side, and none is written.
    """
    from autospine import pipeline
    from autospine.core.errors import PlanError
    from autospine.storage.workspace import Workspace
    from autospine.system.devices import choose_device
    from autospine.system.hardware import parse_bytes
    from planners.overrides import Overrides

    # Wishes are checked before the work, not after.
    for amount in memory or []:
        parse_bytes(amount)
    wishes = _wishes(
        overrides,
        spacing_mm=spacing,
        patch_size=patch,
        feature_size=feature_size,
        networks=networks,
        attention=attention,
        adaptive_stages=_stages(adaptive_stages),
        fusion_weighting=fusion_weighting,
        fusion_placement=fusion_placement,
        v2_blocks=v2_blocks,
        checkpointing=checkpointing,
    )
    location = Workspace.locate(workspace).find_dataset(dataset)
    amounts = memory or []
    if explain and wishes == Overrides() and not (amounts or calibrate) and device == "auto":
        explain_plan(pipeline.read_plan(location))
        return
    if len(amounts) < 2:
        only = amounts[0] if amounts else None
        _plan(location, only, wishes, device, explain=explain, calibrate=calibrate)
        say(f"next: autospine preprocess -d {location.name}")
        return
    if calibrate:
        raise PlanError(f"expected one --memory with --calibrate, found {len(amounts)}; leave out the others")
    plans = pipeline.compare_budgets(location, amounts, device=choose_device(device), overrides=wishes)
    if explain:
        for planned in plans:
            explain_plan(planned)
    compare_plans(plans)
    say("nothing is written: choose one --memory")


@app.command(rich_help_panel="Train, step by step")
def preprocess(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    configuration: options.Configurations = None,
    npy: PlainArrays = False,
    workers: options.Workers = None,
) -> None:
    """Crop, resample and store the cases of a planned dataset; what is there already is kept."""
    from autospine.storage.workspace import Workspace

    _preprocess(Workspace.locate(workspace).find_dataset(dataset), configuration, workers, npy=npy)


def _preprocess(
    location: "DatasetLocation", names: list[str] | None, workers: int | None, *, npy: bool = False
) -> None:
    from autospine import pipeline

    planned = pipeline.read_plan(location)
    names = names or ["0"]
    for name in names:
        chosen = planned.configuration(name)
        _, stored = pipeline.preprocess(location, chosen, workers, "npy" if npy else "blosc2")
        say(f"{len(stored)} cases are ready in {location.preprocessed / chosen.cases}")
    folds = "all" if (location.preprocessed / pipeline.FOLDS_FILE).is_file() else "full"
    say(f"next: autospine train {names[0]} --fold {folds}")


def _plan(
    location: "DatasetLocation",
    memory: str | None,
    overrides: "Overrides",
    device: str,
    *,
    explain: bool = False,
    calibrate: bool = False,
) -> None:
    from autospine import pipeline
    from autospine.system.devices import choose_device

    planned = pipeline.plan(
        location,
        device=choose_device(device),
        memory=memory,
        overrides=overrides,
        measure_memory=calibrate,
    )
    if explain:
        explain_plan(planned)
    else:
        show_plan(planned)
        say(f"why: autospine plan -d {location.name} --explain", "dim")
    say(f"written: {location.preprocessed / pipeline.PLAN}")


def _stages(text: str | None) -> tuple[int, ...] | None:
    """`1,2` as numbers."""
    from autospine.core.errors import PlanError

    if text is None:
        return None
    words = text.replace(",", " ").split()
    if not words or not all(word.isdigit() for word in words):
        raise PlanError(f"expected --adaptive-stages such as 1,2, found {text!r}")
    return tuple(int(word) for word in words)


def _wishes(file: Path | None, **given: Any) -> "Overrides":
    """The options of `plan`, and the file's wishes for those that were not given.

    The planner refuses what it does not know.
    """
    from planners.overrides import Overrides, read_overrides

    said: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(Overrides() if file is None else read_overrides(file), **said)
