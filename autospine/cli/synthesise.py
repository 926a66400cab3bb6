"""`autospine synthesise`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say, say_plan_next
from autospine.core.errors import counted
from autospine.storage.workspace import Workspace, check_new_dataset

if TYPE_CHECKING:
    from autospine.synthesis.appearance import Kind


class ImageKind(StrEnum):
    """Kinds of images that are made."""

    CT = "CT"
    MR = "MR"
    FREE = "free"


@app.command(
    rich_help_panel="Other",
    epilog="For example: autospine synthesise Dataset001 -o raw/Dataset902_Made --cases 40",
)
def synthesise(
    dataset: shared_options.DatasetArgument = None,
    dataset_option: shared_options.DatasetName = None,
    *,
    output: shared_options.NewDataset,
    cases: Annotated[int, typer.Option("--cases", "-n", min=1, help="Make this many cases.")] = 20,
    kind: Annotated[
        list[ImageKind] | None,
        typer.Option(
            "--kind",
            help="Make images of this kind: CT, MR (of many sequences), or free (any intensity for any "
            "structure). Repeat it for several; by default all three.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed the images: the same seed makes the same.")] = 0,
    overwrite: shared_options.Overwrite = False,
    workers: shared_options.Makers = None,
    workspace: shared_options.Workspace = None,
) -> None:
    """Make images in CT and MR from a dataset's tissue maps, or else from its label maps.

    Each case is a map of the dataset, deformed anew within anatomy and drawn in a new appearance, with its
    exact labels.
    """
    check_new_dataset(output)
    named = shared_options.named_dataset(dataset, dataset_option, workspace)
    location = Workspace.locate(workspace).find_dataset(named)

    from autospine.dataset.raw import load_dataset
    from autospine.pipeline.synthesised_dataset import synthesise as make
    from autospine.system.hardware import default_workers
    from autospine.system.log import progress

    kinds: tuple[Kind, ...] = tuple(each.value for each in dict.fromkeys(kind or ImageKind))
    with progress("cases", cases) as meter:
        make(
            load_dataset(location.raw),
            output,
            cases=cases,
            kinds=kinds,
            seed=seed,
            overwrite=overwrite,
            workers=workers or default_workers(),
            on_progress=lambda _done, _total: meter.advance(),
        )
    say(f"{counted(cases, 'case')} in {output}, from the maps of {location.name}")
    say_plan_next(output)
