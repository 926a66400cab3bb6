"""`autospine compare`."""

from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.model_tables import show_comparison
from autospine.cli.reporting import report_on
from autospine.cli.screen import say
from autospine.core.errors import ModelError
from autospine.storage.workspace import Workspace
from autospine.system.hardware import check_device_name


@app.command(rich_help_panel="Train")
def compare(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.OptionalDataset = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            metavar="NAME",
            help="Compare this configuration, by name. Repeat it for several; by default every finished one "
            "is compared.",
            show_default=False,
        ),
    ] = None,
    ensembles: Annotated[
        bool,
        typer.Option(
            "--ensembles/--no-ensembles",
            help="Compare the ensemble of every two models as well; they predict the held-out cases of each "
            "fold.",
        ),
    ] = True,
    workspace: shared_options.Workspace = None,
    device: shared_options.Device = "auto",
    report: shared_options.Report = True,
) -> None:
    """Compare a dataset's models, and every two of them together, by cross-validation.

    `best.json` keeps the result, and `autospine predict` takes the best.
    """
    location = Workspace.locate(workspace).dataset_or_last(
        shared_options.either(dataset, dataset_option, "--dataset / -d")
    )
    check_device_name(device)
    if unknown := [name for name in configuration or () if name not in location.models.names]:
        raise ModelError(
            f"expected models of {location.name} among {', '.join(location.models.names) or 'none'}, found "
            f"{', '.join(unknown)}; name others with -c, or run `autospine train` for them first"
        )

    from autospine.models.best import BEST
    from autospine.pipeline.comparison import compare
    from autospine.system.devices import choose_device

    best = compare(location, device=choose_device(device), names=configuration or (), ensembles=ensembles)
    show_comparison(best)
    say(f"written: {location.results / BEST}")
    if report:
        report_on(location.results)
    say(f"next: {best.command}")
