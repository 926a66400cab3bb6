"""`autospine phantom`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import options
from autospine.cli.app import app
from autospine.cli.screen import say


class Region(StrEnum):
    """Part of the spine in the field of view."""

    LUMBAR = "lumbar"
    THORACOLUMBAR = "thoracolumbar"
    CERVICAL = "cervical"
    WHOLE = "whole"


class Labels(StrEnum):
    """What the phantoms' labels tell apart."""

    LEVELS = "levels"
    STRUCTURES = "structures"


class Modalities(StrEnum):
    """Which modalities to draw."""

    BOTH = "both"
    CT = "CT"
    MR = "MR"


@app.command(rich_help_panel="Other")
def phantom(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Dataset folder, such as raw/Dataset900_Phantom.")
    ],
    cases: Annotated[int, typer.Option("--cases", "-n", min=1, help="Training cases.")] = 10,
    test_cases: Annotated[int, typer.Option(min=0, help="Held-out cases, in imagesTs and labelsTs.")] = 0,
    region: Annotated[Region, typer.Option(help="Part of the spine in the field of view.")] = Region.LUMBAR,
    labels: Annotated[
        Labels,
        typer.Option(help="Each vertebra and disc by level, or vertebra, disc, canal and sacrum as wholes."),
    ] = Labels.LEVELS,
    modality: Annotated[Modalities, typer.Option(help="CT and MR in turn, or one.")] = Modalities.BOTH,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same dataset.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a dataset that is there.")] = False,
    workers: options.Workers = None,
) -> None:
    """Write a dataset of synthetic spines with exact labels, in CT and MR."""
    from autospine import pipeline
    from autospine.core.types import Modality
    from autospine.system.hardware import default_workers

    chosen: dict[Modalities, tuple[Modality, ...]] = {
        Modalities.BOTH: ("CT", "MR"),
        Modalities.CT: ("CT",),
        Modalities.MR: ("MR",),
    }
    pipeline.make_phantoms(
        output,
        cases=cases,
        test_cases=test_cases,
        region=region.value,
        scheme=labels.value,
        modalities=chosen[modality],
        seed=seed,
        overwrite=overwrite,
        workers=workers or default_workers(),
    )
    say(f"{cases} training and {test_cases} held-out cases in {output}")
    if output.parent.name == "raw":
        root = output.parent.parent
        place = "" if root.resolve() == Path.cwd() else f" -w {root}"
        say(f"next: autospine plan-and-preprocess -d {output.name}{place}")
