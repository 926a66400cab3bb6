"""`autospine demo`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say, show_evaluation
from autospine.core.errors import WorkspaceError
from autospine.system.hardware import check_device_name


@app.command(rich_help_panel="Start here")
def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Write everything into this folder; an earlier demo in it is replaced, anything else "
            "refused.",
        ),
    ] = Path("autospine-demo"),
    minutes: Annotated[
        float,
        typer.Option(
            min=1, help="Finish the whole demo in this many minutes; longer training segments better."
        ),
    ] = 14.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed the phantoms and the training.")] = 0,
    device: shared_options.Device = "auto",
) -> None:
    """Run everything on synthetic spines: plan, train five folds, predict, evaluate, draw."""
    check_device_name(device)
    if output.is_file():
        raise WorkspaceError(f"expected a folder for the demo, found the file {output}; name another with -o")

    from autospine.pipeline.demo_run import run_demo
    from autospine.system.devices import choose_device

    result = run_demo(output, minutes=minutes, seed=seed, device=choose_device(device))
    show_evaluation(result.evaluation, "held-out cases")
    say(f"took {result.seconds / 60:.1f} minutes and {result.peak_gb:.1f} GB of memory")
    for what, path in result.files.items():
        say(f"  {what:<12} {path}")
