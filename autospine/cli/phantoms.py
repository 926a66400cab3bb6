"""`autospine phantom`."""

from enum import StrEnum
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say, say_plan_next
from autospine.storage.workspace import check_new_dataset


class FieldOfView(StrEnum):
    """Parts of the spine that fit the field of view."""

    LUMBAR = "lumbar"
    THORACOLUMBAR = "thoracolumbar"
    THORACIC = "thoracic"
    CERVICAL = "cervical"
    WHOLE = "whole"
    ANY = "any"


class Labels(StrEnum):
    """Schemes of the phantoms' labels."""

    LEVELS = "levels"
    STRUCTURES = "structures"


class Modalities(StrEnum):
    """Modalities that are drawn."""

    BOTH = "both"
    CT = "CT"
    MR = "MR"


@app.command(rich_help_panel="Other")
def phantom(
    output: shared_options.NewDataset,
    cases: Annotated[int, typer.Option("--cases", "-n", min=1, help="Draw this many training cases.")] = 10,
    test_cases: Annotated[
        int, typer.Option(min=0, help="Draw this many held-out cases, into imagesTs and labelsTs.")
    ] = 0,
    region: Annotated[
        FieldOfView,
        typer.Option(
            help="Put this part of the spine into the field of view, or draw place and size anew for each "
            "case (any)."
        ),
    ] = FieldOfView.LUMBAR,
    labels: Annotated[
        Labels,
        typer.Option(
            help="Label each vertebra and disc by its level (levels), or vertebra, disc, canal and sacrum as"
            " structures (structures)."
        ),
    ] = Labels.LEVELS,
    modality: Annotated[
        Modalities, typer.Option(help="Draw CT and MR in turn (both), or CT or MR alone.")
    ] = Modalities.BOTH,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed the phantoms: the same seed draws the same dataset.")
    ] = 0,
    tissues: Annotated[
        bool,
        typer.Option(
            "--tissues",
            help="Write tissue maps, too, so that training makes new images of every case as it goes.",
        ),
    ] = False,
    shifts: Annotated[
        bool,
        typer.Option(
            "--shifts",
            help="Draw the cases of several hospitals in turn, each a site of its own: as usual, and with a "
            "sharp kernel, low dose, thick slices, a low field, metal or scoliosis.",
        ),
    ] = False,
    overwrite: shared_options.Overwrite = False,
    workers: shared_options.Makers = None,
) -> None:
    """Write a dataset of synthetic spines with exact labels, in CT and MR."""
    from autospine.core.types import Modality
    from autospine.pipeline.measuring import make_phantoms
    from autospine.system.hardware import default_workers

    check_new_dataset(output)
    chosen: dict[Modalities, tuple[Modality, ...]] = {
        Modalities.BOTH: ("CT", "MR"),
        Modalities.CT: ("CT",),
        Modalities.MR: ("MR",),
    }
    make_phantoms(
        output,
        cases=cases,
        test_cases=test_cases,
        region=region.value,
        scheme=labels.value,
        modalities=chosen[modality],
        seed=seed,
        overwrite=overwrite,
        workers=workers or default_workers(),
        tissues=tissues,
        shifts=shifts,
    )
    say(f"{cases} training and {test_cases} held-out cases in {output}")
    say_plan_next(output)
