"""`autospine demo`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say, show_evaluation
from autospine.core.errors import AutospineError, WorkspaceError
from autospine.io.formats import check_inputs
from autospine.storage.trained_models import STARTER_LIMITS
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
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Train nothing: segment a CT and an MR phantom with the model that comes along."
        ),
    ] = False,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            help="With --fast, segment this image or folder as well, and draw it. Repeat it for several.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed the phantoms and the training.")] = 0,
    device: shared_options.Device = "auto",
) -> None:
    """Run everything on synthetic spines: plan, train five folds, predict, evaluate, draw."""
    check_device_name(device)
    if inputs and not fast:
        raise AutospineError("expected --fast with -i, found none; add it, or leave -i out")
    check_inputs(inputs or [])
    if output.is_file():
        raise WorkspaceError(f"expected a folder for the demo, found the file {output}; name another with -o")

    from autospine.pipeline.demo_run import run_demo, run_fast_demo
    from autospine.system.devices import choose_device

    where = choose_device(device)
    if fast:
        say(STARTER_LIMITS, "yellow")
        result = run_fast_demo(output, images=inputs or [], seed=seed, device=where)
    else:
        result = run_demo(output, minutes=minutes, seed=seed, device=where)
    show_evaluation(result.evaluation, "phantoms that the model had not seen" if fast else "held-out cases")
    say(f"took {result.seconds / 60:.1f} minutes and {result.peak_gb:.1f} GB of memory")
    for what, path in result.files.items():
        say(f"  {what:<12} {path}")
