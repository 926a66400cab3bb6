"""`autospine compare`."""

from typing import Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_comparison


@app.command(rich_help_panel="Train")
def compare(
    dataset: options.OptionalDataset = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            metavar="NAME",
            help="Configuration to compare, by name; may be repeated; by default every finished one.",
            show_default=False,
        ),
    ] = None,
    ensembles: Annotated[
        bool,
        typer.Option(
            "--ensembles/--no-ensembles",
            help="Try every two models together too: they predict the held-out cases of each fold.",
        ),
    ] = True,
    workspace: options.Workspace = None,
    device: options.Device = "auto",
) -> None:
    """Compare a dataset's models, and every two together, by cross-validation; `predict` takes the best."""
    from autospine import pipeline
    from autospine.storage.workspace import Workspace
    from autospine.system.devices import choose_device

    place = Workspace.locate(workspace)
    location = place.find_dataset(dataset) if dataset else place.last_planned()
    best = pipeline.compare(
        location, device=choose_device(device), names=configuration or (), ensembles=ensembles
    )
    show_comparison(best)
    say(f"written: {location.results / pipeline.BEST}")
    say(f"next: {best.command}")
