"""`autospine info`."""

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say
from autospine.storage.atomic import visible
from autospine.storage.locks import is_held
from autospine.storage.trained_models import (
    PLAN,
    describe_unfinished,
    fold_folder,
    fold_names,
    unfinished_folds,
)
from autospine.storage.workspace import Workspace
from autospine.system.hardware import GIB


@app.command(rich_help_panel="Other")
def info(workspace: shared_options.Workspace = None) -> None:
    """Show versions, the device, its memory budget, plug-ins, and the datasets of the workspace."""
    place = Workspace.locate(workspace)

    import torch

    import autospine
    from autospine.core.plugins import installed_plugins
    from autospine.evaluation import metrics
    from autospine.plan import built_in_networks
    from autospine.system.cards import memory_budget
    from autospine.system.devices import choose_device, describe, native_half
    from trainers import losses, trackers
    from trainers.fold_run import TRAINING_LOCK

    device = choose_device()
    budget, reason = memory_budget(device)
    say(f"autospine {autospine.__version__}, torch {torch.__version__}")
    kind = str(native_half(device) or torch.float32).removeprefix("torch.")
    say(f"device: {describe(device)}; trains in {kind}")
    say(f"memory budget: {budget / GIB:.1f} GiB ({reason})")
    built_in = {
        "networks": built_in_networks(),
        "losses": losses.BUILT_IN,
        "metrics": [metric.name for metric in metrics.BUILT_IN],
        "trackers": trackers.BUILT_IN,
    }
    for kind, name, distribution, fault in installed_plugins(built_in):
        say(f"plug-in: {name} of {kind}, from {distribution}{f' ({fault})' if fault else ''}")
    say(f"workspace: {place.root.resolve()}")
    for location in place.datasets():
        planned = "planned" if (location.preprocessed / PLAN).is_file() else "not planned"
        say(f"  {location.name}: {planned}, trained: {', '.join(location.models.names) or 'nothing'}")
        for folder in visible(location.results):
            if unfinished := unfinished_folds(folder):
                training = [fold for fold in unfinished if is_held(fold_folder(folder, fold) / TRAINING_LOCK)]
                complete = fold_names(folder)
                say(f"    {describe_unfinished(folder.name, unfinished, complete, training)}", "yellow")
    if not place.datasets():
        typer.echo(f"  no dataset in {place.raw}{place.whereabouts()}")
