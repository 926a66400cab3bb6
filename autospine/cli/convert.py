"""`autospine convert`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli.app import App, app
from autospine.cli.screen import say
from autospine.core.errors import DatasetError, counted, listed

convert = App(help="Convert label maps between the schemes of tools.", no_args_is_help=True)
app.add_typer(convert, name="convert", rich_help_panel="Other")

LABEL_SCHEMES = (
    "verse, spineps-instance, spineps-subregion, totalsegmentator, totalsegmentator-vertebrae-mr, "
    "totalsegmentator-vertebrae-body, totalsegmentator-vertebrae-pp, totalspineseg, spider-from-bottom (L5 "
    "is 1), spider-from-top (L5 is 24), ctspine1k or structures (vertebra 1, disc 2, canal 3, sacrum 4)"
)


@convert.command(
    name="labels",
    epilog="For example: autospine convert labels -i maps --from totalsegmentator --to verse -o verse-maps",
)
def convert_labels(
    *,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            help="Convert this label map, or each in this folder. Repeat it for several.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the new label maps into this folder.")
    ],
    source: Annotated[
        str, typer.Option("--from", metavar="SCHEME", help=f"State the scheme of the maps: {LABEL_SCHEMES}.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="SCHEME", help="State the scheme to write, one of the same.")
    ],
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Refuse maps of which something would be lost or merged.")
    ] = False,
) -> None:
    """Write label maps in the integers of another tool.

    Where the new scheme lacks a structure, the structure becomes what it is a part of, or else background;
    the command says so for each map.
    """
    from autospine.io.images import read_labels, write_labels
    from autospine.io.segments import Segment
    from autospine.system.log import track
    from autospine.vertebrae.label_conversion import convert_labels as converted
    from autospine.vertebrae.label_conversion import plan_conversion
    from autospine.vertebrae.label_files import check_output, find_label_maps, integers_in
    from autospine.vertebrae.schemes import find_scheme

    old, new = find_scheme(source), find_scheme(target)
    files = find_label_maps(inputs)
    check_output(output, list(files.values()))
    segments = [
        Segment(name=name, integer=new.integers[name], colour=colour) for name, colour in new.colours.items()
    ]
    for note in (f"{scheme.title}: {scheme.note}" for scheme in (old, new) if scheme.note):
        say(note)
    for name, file in track(files.items(), "converting"):
        volume = read_labels(file)
        try:
            plan = plan_conversion(integers_in(volume.array[0]), old, new)
        except DatasetError as error:
            raise DatasetError(f"{file}: {error}") from None
        lost = [f"{label} ({what})" for label, what in plan.lost.items()]
        if lossless and not plan.lossless:
            raise DatasetError(
                f"expected a map that {new.title} can hold without loss, found in {file}: "
                f"{listed([*lost, *plan.merged], 8)}; leave out --lossless to write the rest"
            )
        write_labels(output / file.name, converted(volume.array[0], plan.integers), volume.stored, segments)
        if lost:
            say(f"{name}: lost {listed(lost, len(lost))}", "yellow")
        if plan.merged:
            say(f"{name}: {listed(plan.merged, len(plan.merged))}", "yellow")
    say(f"{counted(len(files), 'label map')} in {output}, from {old.title} to {new.title}")
