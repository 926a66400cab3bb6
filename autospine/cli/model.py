"""`autospine model`: what is done with weights outside training."""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say

if TYPE_CHECKING:
    from autospine.network import ImportReport

model = typer.Typer(help="Weights outside training: import those of MONAI.", no_args_is_help=True)
app.add_typer(model, name="model", rich_help_panel="Train")


class MergeOrder(StrEnum):
    """In which order the imported network stacks the tokens of a merging."""

    AUTO = "auto"
    FIXED = "fixed"
    LEGACY = "legacy"
    V2 = "v2"


@model.command("import-weights")
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(help="Checkpoint of MONAI's SwinUNETR, .pt or .safetensors; model_swinvit.pt too."),
    ],
    dataset: options.OptionalDataset = None,
    configuration: Annotated[
        str,
        typer.Option("--configuration", "-c", help="Configuration to fill the network of, by index or name."),
    ] = "0",
    workspace: options.Workspace = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; by default CONFIGURATION_pretrained.safetensors beside the plan.",
            show_default=False,
        ),
    ] = None,
    merge_order: Annotated[
        MergeOrder,
        typer.Option(
            help="How mergings of the file's network stack tokens: as in MONAI since 1.5 (fixed), as before "
            "(legacy), or as `mergingv2` (v2); auto decides by the file."
        ),
    ] = MergeOrder.AUTO,
    window: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Window of the file's network, where the file does not tell.",
            metavar="S P L",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Refuse conversions that change what the network computes.")
    ] = False,
) -> None:
    """Convert weights of MONAI's SwinUNETR for a planned network; `train --weights` begins from them."""
    from autospine import pipeline
    from autospine.workspace import Workspace

    place = Workspace.locate(workspace)
    location = place.find_dataset(dataset) if dataset else place.last_planned()
    chosen = pipeline.read_plan(location).configuration(configuration)
    say(f"importing {file} for {location.name}, configuration {chosen.name}")
    report, written = pipeline.import_weights(
        location,
        chosen,
        file,
        output,
        merge_order=merge_order.value,
        window_size=window,
        exact=exact,
    )
    show_import(report)
    say(f"written: {written}")
    say(f"next: autospine train {chosen.name} --weights {written}")


def show_import(report: "ImportReport") -> None:
    """What the network computes now, and which tensors were filled, converted, left, and had no place."""
    say(f"layout {report.layout}; merge order {report.merge_order}: {report.merge_reason}")
    say(f"filled: {report.encoder_share:.0%} of the encoder's tensors, {len(report.filled)} in all")
    for difference in report.differences:
        say(f"differs from the file's network: {difference}", "yellow")
    _show("matched", report.matched)
    for how in dict.fromkeys(report.converted.values()):
        _show(how, [name for name, done in report.converted.items() if done == how])
    _show("missing in the file, begin at random", report.missing)
    _show("AutoSpine's own, begin as ever", report.own)
    _show("unused keys of the file", report.unused)


def _show(title: str, names: Sequence[str]) -> None:
    """A title with a count, and the names below it, those that differ in a number only as one."""
    say(f"{title}: {len(names)}", "bold")
    for name, times in Counter(re.sub(r"\.\d+", ".*", name) for name in names).items():
        say(f"  {name}" + (f"  ({times})" if times > 1 else ""), "dim")
