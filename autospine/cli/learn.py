"""`autospine train`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_evaluation


@app.command(rich_help_panel="Train")
def train(
    configuration: Annotated[
        str, typer.Argument(help="Configuration by index or name; 0 is the recommended one.")
    ] = "0",
    fold: Annotated[
        str,
        typer.Option(
            "--fold",
            "-f",
            help="`all`: each of the five folds; `3`: one of them; `full`: one model on every case "
            "(what nnU-Net calls `all`).",
        ),
    ] = "all",
    dataset: options.OptionalDataset = None,
    workspace: options.Workspace = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs per fold instead of the plan's.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps per epoch instead of the plan's.", show_default=False)
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Time for the whole command, validation included; the schedule is fitted to it.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Begin from weights that `autospine model import-weights` has written.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and of every patch.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            min=0,
            help="Processes that make patches; 0 is a thread, the default without a GPU.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Folds trained side by side, at most; by default on a CPU as many as memory allows.",
            show_default=False,
        ),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            help="Tell an experiment tracker as well: `tensorboard`, `wandb`, `mlflow` or one that is "
            "installed; may be repeated.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Train folds of a planned dataset; finished ones are kept, an interrupted one goes on."""
    from autospine import pipeline
    from autospine.hardware import choose_device, default_workers, describe
    from autospine.workspace import Workspace
    from trainers.settings import Settings

    place = Workspace.locate(workspace)
    location = place.find_dataset(dataset) if dataset else place.last_planned()
    planned = pipeline.read_plan(location)
    chosen = planned.configuration(configuration)
    where = choose_device(device)
    say(f"training {location.name}, configuration {chosen.name}, fold {fold}, on {describe(where)}")
    per_gpu = 0 if where.type == "cpu" else default_workers()
    evaluation = pipeline.train(
        location,
        configuration,
        fold,
        Settings(
            epochs=epochs,
            iterations=iterations,
            weights=weights,
            seed=seed,
            workers=per_gpu if workers is None else workers,
            parallel=parallel or pipeline.folds_at_once(chosen, planned.memory_budget_bytes, where),
            trackers=tuple(dict.fromkeys(tracker or ())),
            device=where,
        ),
        minutes=max_minutes,
    )
    if evaluation is not None:
        show_evaluation(evaluation, f"{location.name}, {chosen.name}, cross-validation")
    say(f"model: {location.results / chosen.name}")
    say("next: autospine predict -i IMAGES -o OUTPUT")
