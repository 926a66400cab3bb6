"""`autospine anatomy measure`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.identify import anatomy
from autospine.cli.reporting import report_on
from autospine.cli.screen import say
from autospine.core.errors import DatasetError, FailedCasesError, counted, listed

if TYPE_CHECKING:
    import numpy as np

    from autospine.core.types import Modality
    from autospine.io.images import Volume
    from autospine.measurements.measured_labels import SpineLabels
    from autospine.measurements.spine_measurements import SpineMeasurements
    from autospine.vertebrae.schemes import LabelScheme

POINTS = "verse, tptbox, slicer, fcsv or sct"


@anatomy.command(epilog="For example: autospine anatomy measure -i named --images scans -o measured")
def measure(
    *,
    inputs: shared_options.LabelMaps,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Write tables, JSON and a page of each case into this folder."),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="PATH",
            help="Take the image of the label map, or of each by its name, from here: HU are measured in "
            "CT, and the page shows it.",
        ),
    ] = None,
    scheme: shared_options.LabelScheme = None,
    dataset: shared_options.LabelsOf = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="FORMAT",
            help=f"Write points in the format of another tool, too: {POINTS}. Repeat it for several.",
        ),
    ] = None,
    report: shared_options.Report = True,
) -> None:
    """Measure vertebrae, discs, canal, angles and alignment in label maps.

    Each value is in mm, ml, degrees or HU as docs/concepts/measurements.md defines it; what the border cuts,
    what is fused and what metal hides is left empty, and a note says why. Files that fail are named, the
    others go on, and the exit code is 1. AutoSpine is not a medical device: the numbers must not be used for
    diagnosis or treatment.
    """
    from autospine.measurements.measurement_failures import record_failures
    from autospine.vertebrae.label_files import check_output, find_label_maps, write_each

    kinds = _point_formats(points or [])
    read = _label_reader(shared_options.stated_scheme(scheme, dataset), dataset)
    files = find_label_maps(inputs)
    check_output(output, list(files.values()))
    pictures = {} if images is None else _images(images, list(files))
    say(
        "AutoSpine is not a medical device; these numbers must not be used for diagnosis or treatment.",
        "yellow",
    )

    def write(name: str, path: Path) -> Path:
        labels, known = read(path)
        return _write_measured(output, path, name, labels, known, pictures.get(name), kinds)

    failed = None
    try:
        written = write_each(files, "measuring", write)
    except FailedCasesError as error:
        failed, written = error, error.written
    record_failures(output, {} if failed is None else failed.failed, written)
    if report:
        report_on(output)
    if failed is not None:
        raise failed
    say(f"{counted(len(files), 'case')} in {output}")


def _point_formats(wanted: Sequence[str]) -> Sequence[str]:
    """Return the formats of points that are wanted.

    Raises:
        DatasetError: If one of them is not known.
    """
    from autospine.measurements.point_files import POINT_FORMATS

    for kind in wanted:
        if kind not in POINT_FORMATS:
            raise DatasetError(
                f"expected points in a format among {', '.join(POINT_FORMATS)}, found {kind!r}"
            )
    return wanted


def _write_measured(
    output: Path,
    source: Path,
    case: str,
    labels: "Volume",
    known: "SpineLabels",
    picture: Path | None,
    kinds: Sequence[str],
) -> Path:
    """Measure a label map, write all files of its case, and return that of the measurements.

    Args:
        output: Folder for the files; made if absent.
        source: File of the label map.
        case: Name of the case.
        labels: Its label map.
        known: What the label values stand for.
        picture: File of its image; None without one.
        kinds: Formats that points are written in.
    """
    from autospine.measurements.measure_spine import measure_spine
    from autospine.measurements.measurement_files import write_measurements
    from autospine.measurements.point_files import write_points
    from autospine.report.measurement_page import PAGE_ENDING, write_measurement_page
    from autospine.vertebrae.identities import NAMES_ENDING

    image, modality = (None, None) if picture is None else _image(picture, labels)
    spine = measure_spine(case, labels.array[0], labels.grid, known, image if modality == "CT" else None)
    measured = replace(spine.measurements, label_map=str(source.resolve()))
    measured, doubts = _doubted(measured, source.with_name(f"{case}{NAMES_ENDING}"))
    for doubt in doubts:
        say(f"{case}: {doubt}", "yellow")
    spine = replace(spine, measurements=measured)
    output.mkdir(parents=True, exist_ok=True)
    written = write_measurements(output, measured)
    page = output / f"{case}{PAGE_ENDING}"
    write_measurement_page(page, spine, labels.array[0], labels.grid, image, modality)
    if kinds and (cut := [found.level for found in spine.bodies if found.cut]):
        say(f"{case}: the border of the image cuts {listed(cut)}, left out of the points", "yellow")
    unsure = [each.level for each in spine.bodies if each.body and not each.cut and not each.usable]
    if kinds and unsure:
        doubt = f"the bodies of {listed(unsure)} were not told from their arches; look at their points"
        say(f"{case}: {doubt}", "yellow")
    whole = replace(spine, bodies=tuple(found for found in spine.bodies if not found.cut))
    for kind in kinds:
        write_points(kind, output, case, whole, labels.stored, labels.grid)
    say(_summary(measured))
    return written


def _doubted(measured: "SpineMeasurements", names: Path) -> "tuple[SpineMeasurements, tuple[str, ...]]":
    """Return measurements with notes on unknown levels, by the file of the names, and what to say of it."""
    from autospine.core.errors import FormatError
    from autospine.measurements.doubted_levels import with_doubts
    from autospine.storage.serialization import read_json
    from autospine.vertebrae.identities import SpineIdentities

    if not names.is_file():
        return measured, ()
    try:
        found = read_json(names, SpineIdentities)
    except FormatError as error:
        return measured, (f"measured without knowing which levels are unknown: {error}",)
    doubted = with_doubts(measured, found)
    return doubted, doubted.notes[len(measured.notes) :]


def _label_reader(scheme: str, dataset: Path | None) -> "Callable[[Path], tuple[Volume, SpineLabels]]":
    """Return what reads a label map, and says what its values stand for.

    Args:
        scheme: Name of the scheme of the label maps.
        dataset: The dataset.json that names their values; None for the scheme.

    Raises:
        DatasetError: If there is no such scheme or description, or no class of it is a level.
    """
    from autospine.dataset.description import load_labels
    from autospine.io.images import read_labels
    from autospine.measurements.measured_labels import labels_of_dataset
    from autospine.vertebrae.schemes import find_scheme

    if dataset is None:
        return partial(_read_by_scheme, find_scheme(scheme))
    space = load_labels(dataset)
    levels = labels_of_dataset(space)
    return lambda path: (read_labels(path, space), levels)


def _read_by_scheme(known: "LabelScheme", path: Path) -> "tuple[Volume, SpineLabels]":
    """Read a label map of a scheme.

    Raises:
        DatasetError: If no vertebra in it has a level.
    """
    from autospine.io.images import read_labels
    from autospine.measurements.measured_labels import labels_of_scheme
    from autospine.vertebrae.label_files import integers_in
    from autospine.vertebrae.scheme_doubts import doubts_of_scheme
    from autospine.vertebrae.unnamed_vertebrae import FIRST_UNKNOWN, LAST_UNKNOWN, PLAIN

    volume = read_labels(path)
    present = integers_in(volume.array[0]) - {0}
    others = present - set(known.structures(present)) - known.beside
    own = {*PLAIN.values(), *range(FIRST_UNKNOWN, LAST_UNKNOWN + 1)} if known.name == "verse" else set()
    unnamed = others & own & set(range(FIRST_UNKNOWN + 1, LAST_UNKNOWN + 1))
    if left_out := [str(n) for n in sorted(others - own)]:
        say(f"{path.name}: {listed(left_out, 8)} are no labels of {known.title}, and are left out", "yellow")
    if doubt := doubts_of_scheme(volume.array[0], volume.grid, known).in_words(known):
        say(f"{path.name}: {doubt}", "yellow")
    labels = labels_of_scheme(known, present)
    if unnamed:
        mend = (
            "if you know the level of the uppermost vertebra, name the map that it was made of again with "
            "`autospine anatomy identify --uppermost LEVEL`; a larger field of view, with the sacrum or C1, "
            "tells it as well"
        )
        found = f"{counted(len(unnamed), 'label')} of vertebrae whose level is unknown"
        if not labels.levels:
            raise DatasetError(f"expected vertebrae by level in {path}, found {found}; {mend}")
        say(f"{path.name}: {found} are left out; {mend}", "yellow")
    if not labels.levels:
        raise DatasetError(
            f"expected vertebrae by level in {path}, as labels of {known.title}, found "
            f"{listed([str(n) for n in sorted(present)], 8) or 'an empty map'}; state the scheme with "
            "--scheme or the dataset with --labels-of, or name vertebrae first with "
            "`autospine anatomy identify`"
        )
    return volume, labels


def _images(path: Path, cases: list[str]) -> dict[str, Path]:
    """Return the image of each case that has one."""
    from autospine.io.formats import ENDINGS
    from autospine.vertebrae.label_files import find_files

    found = find_files([path], ENDINGS, "images")
    if path.is_file() and len(cases) == 1:
        return {cases[0]: path}
    by_case = {name.removesuffix("_0000"): file for name, file in found.items()}
    if missing := [case for case in cases if case not in by_case]:
        say(f"no image in {path} for {listed(missing, 5)}", "yellow")
    return {case: by_case[case] for case in cases if case in by_case}


def _image(path: Path, labels: "Volume") -> "tuple[np.ndarray, Modality]":
    """Read the image of a label map.

    Raises:
        DatasetError: If it lies on another grid.
    """
    from autospine.core.geometry import difference
    from autospine.core.modality import guess_modality
    from autospine.io.images import read_volume

    volume = read_volume(path)
    if apart := difference(volume.grid, labels.grid):
        raise DatasetError(
            f"expected the image {path} on the grid of its label map, found {apart}; resample one "
            "to the other"
        )
    image = volume.turned_to(labels.grid)[0]
    return image, guess_modality(image)


def _summary(measured: "SpineMeasurements") -> str:
    """Return what was measured of a case in one line."""
    whole = [each for each in measured.vertebrae if each.posterior_height_mm is not None]
    broken = [f"{each.level} grade {each.genant_grade}" for each in whole if each.genant_grade]
    angles = [f"{angle.name} {angle.degrees:.0f}" for angle in measured.angles[:4]]
    parts = [
        f"{len(whole)} of {len(measured.vertebrae)} vertebrae measured",
        *([f"Genant {', '.join(broken)}"] if broken else []),
        *angles,
    ]
    return f"{measured.case}: {'; '.join(parts)}"
