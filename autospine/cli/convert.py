"""`autospine convert`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import App, app
from autospine.cli.screen import say, say_plan_next
from autospine.cli.shared_options import LABEL_SCHEMES
from autospine.core.errors import DatasetError, WorkspaceError, counted, listed
from autospine.storage.workspace import check_new_dataset

convert = App(help="Convert label maps and public datasets.", no_args_is_help=True)
app.add_typer(convert, name="convert", rich_help_panel="Other")

DATASET_RELEASES = (
    "verse, verse-challenge, ctspine1k, spider-from-bottom (L5 is 1), spider-from-top (L5 is 24), "
    "totalsegmentator, totalspineseg, or msd, nnunet-v1 or nnunet-v2 (any dataset of the Decathlon or of "
    "nnU-Net)"
)


@convert.callback()
def _group() -> None:
    """Convert label maps and public datasets."""


@convert.command(
    name="labels",
    epilog="For example: autospine convert labels -i maps --from totalsegmentator --to verse -o verse-maps",
)
def convert_labels(
    *,
    inputs: shared_options.LabelMaps,
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
    the command says so for each map. Maps that cannot be converted are named, the others go on, and the exit
    code is 1.
    """
    from autospine.io.images import read_labels, write_labels
    from autospine.vertebrae.label_conversion import convert_labels as converted
    from autospine.vertebrae.label_conversion import plan_conversion
    from autospine.vertebrae.label_files import check_output, find_label_maps, integers_in, write_each
    from autospine.vertebrae.scheme_doubts import doubts_of_scheme
    from autospine.vertebrae.scheme_segments import scheme_segments
    from autospine.vertebrae.schemes import find_scheme

    old, new = find_scheme(source), find_scheme(target)
    files = find_label_maps(inputs)
    check_output(output, list(files.values()))
    for note in (f"{scheme.title}: {scheme.note}" for scheme in (old, new) if scheme.note):
        say(note)

    def write(name: str, file: Path) -> Path:
        """Convert one label map, and return its new file."""
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
        if lost and not any(plan.integers.values()):
            raise DatasetError(
                f"expected a structure that {new.title} has in {file}, found {listed(lost, 8)} alone, of "
                "which nothing would be left; name another scheme with --to"
            )
        path = output / file.name
        segments = scheme_segments(new, plan.integers.values())
        write_labels(path, converted(volume.array[0], plan.integers), volume.stored, segments)
        if lost:
            say(f"{name}: lost {listed(lost, len(lost))}", "yellow")
        if plan.merged:
            say(f"{name}: {listed(plan.merged, len(plan.merged))}", "yellow")
        if doubt := doubts_of_scheme(volume.array[0], volume.grid, old).in_words(old, "--from"):
            say(f"{name}: {doubt}", "yellow")
        return path

    write_each(files, "converting", write)
    say(f"{counted(len(files), 'label map')} in {output}, from {old.title} to {new.title}")


@convert.command(
    name="dataset",
    epilog="For example: autospine convert dataset -i verse20 --from verse -o raw/Dataset010_VerSe",
)
def convert_dataset(
    *,
    source: Annotated[
        Path,
        typer.Option(
            "--input", "-i", metavar="FOLDER", help="Convert the dataset in this folder, as it was released."
        ),
    ],
    release: Annotated[
        str, typer.Option("--from", metavar="DATASET", help=f"State which dataset it is: {DATASET_RELEASES}.")
    ],
    output: shared_options.NewDataset,
    overwrite: shared_options.Overwrite = False,
) -> None:
    """Make a raw dataset of a public one, ready for `plan-and-preprocess`.

    Images are linked, and so are label maps that need no change; the others are written with VerSe's
    integers, 100 more for the disc below a vertebra. Datasets of the Decathlon and of nnU-Net keep their own.
    Parts and subjects of the release are kept: its test cases go to imagesTs, and its validation cases into
    splits_final.json; VerSe's centroids are linked into centroidsTr. Cases that cannot be converted are
    named, the others go on, and the exit code is 1.
    """
    check_new_dataset(output)
    shared_options.check_exists(source, "a dataset")
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise WorkspaceError(
            f"expected a folder of its own for the new dataset, found {output}, which holds the one that is "
            "converted; name another with -o"
        )

    from autospine.pipeline.converted_dataset import SPLITS
    from autospine.pipeline.converted_dataset import convert_dataset as converted
    from autospine.pipeline.decathlon_dataset import NAMES, convert_decathlon
    from autospine.pipeline.linked_dataset import NAME, link_dataset
    from autospine.vertebrae.dataset_releases import find_release

    kind = release.strip().lower()
    if kind in NAMES:
        made = convert_decathlon(source, output, overwrite=overwrite)
    elif kind == NAME:
        made = link_dataset(source, output, overwrite=overwrite)
    else:
        made = converted(source, find_release(release), output, overwrite=overwrite)
    for note in made.notes:
        say(note, "yellow")
    say(f"{counted(made.training, 'training case')} and {counted(made.test, 'test case')} in {output}")
    if made.splits:
        say(
            f"its own validation cases are in {output / SPLITS}: give it to plan-and-preprocess with --splits"
        )
    if made.failed is not None:
        raise made.failed
    say_plan_next(output)
