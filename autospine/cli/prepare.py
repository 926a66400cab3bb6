"""Commands from the raw dataset to stored cases."""

from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_plan

if TYPE_CHECKING:
    from autospine.workspace import DatasetLocation
    from planners.planner import Overrides


@app.command("plan-and-preprocess", rich_help_panel="Train")
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
    checkpointing: options.Checkpointing = False,
    workers: options.Workers = None,
    device: options.Device = "auto",
) -> None:
    """Verify and measure a dataset, plan for it, and preprocess its cases."""
    from autospine.hardware import choose_device, parse_bytes
    from autospine.pipeline import FOLDS_FILE
    from autospine.workspace import Workspace

    # Wishes are checked before the work, not after.
    if memory is not None:
        parse_bytes(memory)
    choose_device(device)
    overrides = _overrides(
        spacing,
        patch,
        feature_size,
        networks,
        attention,
        adaptive_stages,
        fusion_weighting,
        fusion_placement,
        checkpointing,
    )
    location = Workspace.locate(workspace).find_dataset(dataset)
    fingerprint(dataset, workspace, workers)
    _plan(location, memory, overrides, device)
    preprocess(dataset, workspace, configuration, workers)
    folds = "all" if (location.preprocessed / FOLDS_FILE).is_file() else "full"
    say(f"next: autospine train 0 --fold {folds}")


@app.command(rich_help_panel="Train, step by step")
def verify(dataset: options.DatasetName, workspace: options.Workspace = None) -> None:
    """List every fault of a raw dataset at once."""
    from autospine import pipeline
    from autospine.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    report = pipeline.check(location)
    report.raise_if_bad()
    say(f"{location.name} is sound: {len(report.dataset.cases)} training cases")


@app.command(rich_help_panel="Train, step by step")
def fingerprint(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            min=1,
            help="Cases measured at the same time; by default one per core, at most 4.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Verify and measure a dataset: spacings, sizes, noise, intensities, classes, duplicates."""
    from autospine import pipeline
    from autospine.cli.screen import show_fingerprint
    from autospine.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    _, measured = pipeline.fingerprint(location, workers)
    show_fingerprint(measured)
    say(f"written: {location.preprocessed / pipeline.FINGERPRINT}")


@app.command(rich_help_panel="Train, step by step")
def plan(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    memory: options.Memory = None,
    spacing: options.Spacing = None,
    patch: options.Patch = None,
    feature_size: options.FeatureSize = None,
    networks: options.Networks = None,
    attention: options.Attention = None,
    adaptive_stages: options.AdaptiveStages = None,
    fusion_weighting: options.FusionWeighting = None,
    fusion_placement: options.FusionPlacement = None,
    checkpointing: options.Checkpointing = False,
    device: options.Device = "auto",
) -> None:
    """Decide spacing, patch, windows, fusion kernels and the rest, each with its reason."""
    from autospine.workspace import Workspace

    overrides = _overrides(
        spacing,
        patch,
        feature_size,
        networks,
        attention,
        adaptive_stages,
        fusion_weighting,
        fusion_placement,
        checkpointing,
    )
    _plan(Workspace.locate(workspace).find_dataset(dataset), memory, overrides, device)


@app.command(rich_help_panel="Train, step by step")
def preprocess(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    configuration: options.Configurations = None,
    workers: options.Workers = None,
) -> None:
    """Crop, resample and store the cases of a planned dataset; what is there already is kept."""
    from autospine import pipeline
    from autospine.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    planned = pipeline.read_plan(location)
    for name in configuration or ["0"]:
        chosen = planned.configuration(name)
        _, stored = pipeline.preprocess(location, chosen, workers)
        say(f"{len(stored)} cases are ready in {location.preprocessed / chosen.cases}")


def _plan(location: "DatasetLocation", memory: str | None, overrides: "Overrides", device: str) -> None:
    from autospine import pipeline
    from autospine.hardware import choose_device

    planned = pipeline.plan(location, device=choose_device(device), memory=memory, overrides=overrides)
    show_plan(planned)
    say(f"written: {location.preprocessed / pipeline.PLAN}")


def _overrides(
    spacing: tuple[float, float, float] | None,
    patch: tuple[int, int, int] | None,
    feature_size: int | None,
    networks: list[str] | None,
    attention: list[str] | None,
    adaptive_stages: str | None,
    fusion_weighting: list[str] | None,
    fusion_placement: list[str] | None,
    checkpointing: bool,
) -> "Overrides":
    """The options of `plan` as the planner takes them; it refuses what it does not know."""
    from autospine.errors import PlanError
    from planners.networks import DEFAULT
    from planners.planner import Overrides

    words = [] if adaptive_stages is None else adaptive_stages.replace(",", " ").split()
    if not all(word.isdigit() for word in words):
        raise PlanError(f"expected --adaptive-stages such as 1,2, found {adaptive_stages!r}")
    return Overrides(
        spacing_mm=spacing,
        patch_size=patch,
        feature_size=feature_size,
        networks=tuple(networks or (DEFAULT,)),
        attention=tuple(attention or ()),
        adaptive_stages=None if adaptive_stages is None else tuple(int(word) for word in words),
        fusion_weighting=tuple(fusion_weighting or ()),
        fusion_placement=tuple(fusion_placement or ()),
        checkpointing=checkpointing,
    )
