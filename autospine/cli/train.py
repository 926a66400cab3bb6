"""`autospine train`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say, show_evaluation
from autospine.core.errors import TrainingError

ConfigurationName = Annotated[
    str, typer.Argument(help="Configuration by index or name; 0 is the recommended one.")
]
FoldName = Annotated[
    list[str] | None,
    typer.Option(
        "--fold",
        "-f",
        metavar="FOLD",
        help="`all`, the default: each of the five folds; `3`: one of them; `full`: one model on every case "
        "(what nnU-Net calls `all`).",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Epochs per fold instead of the plan's.", show_default=False)
]
Iterations = Annotated[
    int | None, typer.Option(help="Steps per epoch instead of the plan's.", show_default=False)
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Time for the whole command, validation included; the schedule is fitted to it.",
        show_default=False,
    ),
]
Extend = Annotated[
    int | None,
    typer.Option(
        metavar="EPOCHS",
        help="Train complete folds further by so many epochs, with a short schedule of their own.",
        show_default=False,
    ),
]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        help="Begin from a trained model (its folder, a fold's folder in it, or an .autospine file), or from "
        "weights that `autospine model import-weights` has written.",
        show_default=False,
    ),
]
DeepSupervision = Annotated[
    bool, typer.Option("--deep-supervision", help="Supervise coarser levels of the decoder too.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network: a slow start, then faster steps on a GPU.")
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same weights, bit for bit, each time; slower on a GPU.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Of the first weights and of every patch; by default 0, and of folds that go on or are extended "
        "the one they have.",
        show_default=False,
    ),
]
PatchWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=0,
        help="Processes that make patches; 0 is a thread, the default without a GPU.",
        show_default=False,
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Folds trained side by side, at most; by default one per GPU, on a CPU what memory allows.",
        show_default=False,
    ),
]

Tracker = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Tell an experiment tracker as well: `tensorboard`, `wandb`, `mlflow` or one that is "
        "installed; may be repeated.",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Train", epilog="For example: autospine train 0 --fold all --max-minutes 60")
def train(
    configuration: ConfigurationName = "0",
    folds: FoldName = None,
    dataset: options.OptionalDataset = None,
    workspace: options.Workspace = None,
    epochs: Epochs = None,
    iterations: Iterations = None,
    max_minutes: MaxMinutes = None,
    extend: Extend = None,
    pretrained: Pretrained = None,
    deep_supervision: DeepSupervision = False,
    compile: Compile = False,
    deterministic: Deterministic = False,
    seed: Seed = None,
    workers: PatchWorkers = None,
    parallel: Parallel = None,
    tracker: Tracker = None,
    device: options.Device = "auto",
) -> None:
    """Train folds of a planned dataset; finished ones are kept, an interrupted one goes on."""
    from autospine import pipeline
    from autospine.dataset.splits import FULL
    from autospine.models.model_folder import open_model
    from autospine.storage.workspace import Workspace
    from autospine.system.devices import describe, devices_like
    from autospine.system.hardware import default_workers
    from trainers import distributed
    from trainers.settings import Settings

    fold, *more = folds or ["all"]
    if more:
        raise TrainingError(
            f"expected one --fold, found {1 + len(more)}; run the command once for each, or with --fold all"
        )
    place = Workspace.locate(workspace)
    location = place.find_dataset(dataset) if dataset else place.last_planned()
    planned = pipeline.read_plan(location)
    chosen = planned.configuration(configuration)
    with distributed.joined(device) as where:
        processes = distributed.size()
        places = devices_like(where, device) if processes == 1 else (where,)
        at_once = parallel or pipeline.folds_at_once(chosen, planned.memory_budget_bytes, places)
        if processes > 1:
            at_once = 1  # a fold is trained by all of them
        sharers = pipeline.sharers_of_cores(fold, at_once, distributed.size_here())
        per_gpu = 0 if where.type == "cpu" else default_workers(sharers)
        settings = Settings(
            epochs=epochs,
            iterations=iterations,
            extend=extend,
            pretrained=pretrained,
            deep_supervision=deep_supervision,
            compiled=compile,
            deterministic=deterministic,
            seed=seed,
            workers=per_gpu if workers is None else workers,
            parallel=at_once,
            trackers=tuple(dict.fromkeys(tracker or ())),
            device=where,
            devices=places if len(places) > 1 else (),
        )
        pipeline.check_fold(location, fold)
        say(
            f"training {location.name}, configuration {chosen.name}, fold {fold}, on {describe(where)}"
            + (f", {processes} processes, each with the planned batch" if processes > 1 else "")
            + (f", a fold on each of {len(places)} GPUs" if len(places) > 1 and fold == "all" else "")
        )
        evaluation = pipeline.train(location, configuration, fold, settings, minutes=max_minutes)
        if evaluation is not None and fold != FULL:
            show_evaluation(evaluation, f"{location.name}, {chosen.name}, cross-validation")
        folder = location.results / chosen.name
        say(f"model: {folder}")
        others = fold == FULL and open_model(folder).ensemble != (FULL,)
        say(f"next: autospine predict -i IMAGES -o OUTPUT{f' -f {FULL}' if others else ''}")
        models = () if evaluation is None or fold == FULL else pipeline.comparable(location)
        if chosen.name in models and len(models) > 1:
            say(f"or compare {', '.join(models)} first: autospine compare -d {location.name}")
