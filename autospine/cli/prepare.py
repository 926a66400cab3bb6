"""Commands from the raw dataset to stored cases."""

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_plan


@app.command("plan-and-preprocess", rich_help_panel="Train")
def plan_and_preprocess(
    dataset: options.DatasetName,
    workspace: options.Workspace = None,
    configuration: options.Configurations = None,
    memory: options.Memory = None,
    spacing: options.Spacing = None,
    patch: options.Patch = None,
    feature_size: options.FeatureSize = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
) -> None:
    """Verify and measure a dataset, plan for it, and preprocess its cases."""
    from autospine.hardware import parse_bytes
    from autospine.pipeline import FOLDS_FILE
    from autospine.workspace import Workspace

    if memory is not None:
        parse_bytes(memory)  # before the work, not after
    location = Workspace.locate(workspace).find_dataset(dataset)
    fingerprint(dataset, workspace)
    plan(dataset, workspace, memory, spacing, patch, feature_size, device)
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
def fingerprint(dataset: options.DatasetName, workspace: options.Workspace = None) -> None:
    """Verify and measure a dataset: spacings, sizes, intensities, classes."""
    from autospine import pipeline
    from autospine.cli.screen import show_fingerprint
    from autospine.workspace import Workspace

    location = Workspace.locate(workspace).find_dataset(dataset)
    _, measured = pipeline.fingerprint(location)
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
    device: options.Device = "auto",
) -> None:
    """Decide spacing, patch, windows, fusion kernels and the rest, each with its reason."""
    from autospine import pipeline
    from autospine.hardware import choose_device
    from autospine.workspace import Workspace
    from planners.planner import Overrides

    location = Workspace.locate(workspace).find_dataset(dataset)
    planned = pipeline.plan(
        location,
        device=choose_device(device),
        memory=memory,
        overrides=Overrides(spacing_mm=spacing, patch_size=patch, feature_size=feature_size),
    )
    show_plan(planned)
    say(f"written: {location.preprocessed / pipeline.PLAN}")


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
        say(f"{len(stored)} cases are ready in {location.preprocessed / chosen.name}")
