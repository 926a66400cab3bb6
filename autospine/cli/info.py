"""`autospine info`."""

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say


@app.command(rich_help_panel="Other")
def info(workspace: options.Workspace = None) -> None:
    """Show versions, the device, and the datasets of the workspace."""
    import torch

    import autospine
    from autospine.storage.workspace import Workspace
    from autospine.system.devices import bfloat16_pays, choose_device, describe, memory_budget

    device = choose_device()
    budget, reason = memory_budget(device)
    say(f"autospine {autospine.__version__}, torch {torch.__version__}")
    say(f"device: {describe(device)}; bfloat16 {'pays' if bfloat16_pays(device) else 'does not pay'}")
    say(f"memory budget: {budget / 1024**3:.1f} GiB ({reason})")
    place = Workspace.locate(workspace)
    say(f"workspace: {place.root.resolve()}")
    for location in place.datasets():
        planned = "planned" if (location.preprocessed / "plan.json").is_file() else "not planned"
        models = sorted(
            {path.parents[1].name for path in location.results.glob("*/fold_*/model.safetensors")}
        )
        say(f"  {location.name}: {planned}, trained: {', '.join(models) or 'nothing'}")
    if not place.datasets():
        typer.echo(f"  no datasets in {place.raw}")
