"""`autospine anatomy`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import App, app
from autospine.cli.screen import say
from autospine.core.errors import DatasetError, counted, listed

if TYPE_CHECKING:
    from autospine.core.types import LabelArray
    from autospine.io.images import Volume
    from autospine.vertebrae.identities import SpineIdentities
    from autospine.vertebrae.schemes import LabelScheme

PRINTED = 8
"""Most changes of a case that are printed, the largest first."""

APART = 0.05
"""Difference of probabilities from which on the least certain level is named."""

anatomy = App(help="Name vertebrae, and measure them.", no_args_is_help=True)
app.add_typer(anatomy, name="anatomy", rich_help_panel="Predict")


@anatomy.callback()
def _group() -> None:
    """Name vertebrae, and measure them."""


@anatomy.command(epilog="For example: autospine anatomy identify -i maps -o named --scheme totalsegmentator")
def identify(
    *,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            help="Name the vertebrae of this label map or file of detected points (.json), or of each in "
            "this folder. Repeat it for several.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Write label maps and CASE_vertebrae.json of each into this folder."
        ),
    ],
    scheme: shared_options.LabelScheme = None,
    dataset: shared_options.LabelsOf = None,
    uppermost: Annotated[
        str | None,
        typer.Option(
            "--uppermost",
            metavar="LEVEL",
            help="State the level of the uppermost vertebra in view, such as T5, where you know it: the "
            "others follow from it. It holds for one file at a time.",
        ),
    ] = None,
) -> None:
    """Name each vertebra by the most probable possible spine, with its probability.

    Order along the spine, distances, sizes and angles, the labels that a tool gave or the regions that a
    detector saw, and what is missing count together. Vertebrae split between two labels are joined, touching
    ones of one label are split, and miscounted ones renamed; every change is printed and listed in
    CASE_vertebrae.json, and nothing is removed. Where nothing in view tells the level, it is `unknown`, and
    the labels stay. A map that has one label for all vertebrae, as the starter's (`--scheme structures`) or a
    class `vertebra` of a dataset, or one for all of their bodies, is written in the integers of VerSe:
    touching vertebrae are told apart and named from the sacrum, and the n-th one from the head down is
    150 + n where its level is unknown. If the levels of a map are no plausible spine, another scheme may be
    meant, and the command says so. Files that fail are named, the others go on, and the exit code is 1.
    """
    from autospine.evaluation.postprocessing import in_ml
    from autospine.io.formats import ENDINGS
    from autospine.storage.serialization import write_json
    from autospine.vertebrae.detection_files import is_no_list
    from autospine.vertebrae.identities import NAMES_ENDING
    from autospine.vertebrae.label_files import check_output, find_files, write_each
    from autospine.vertebrae.schemes import find_scheme

    def is_record(path: Path) -> bool:
        return path.name.lower().endswith(".json") and is_no_list(path)

    stated = shared_options.stated_scheme(scheme, dataset)
    known = _scheme_of_dataset(dataset) if dataset else find_scheme(stated)
    files = find_files(inputs, (".json", *ENDINGS), "label maps or files of detected points", is_record)
    check_output(output, list(files.values()))
    level = _stated_level(uppermost, len(files))

    def write(name: str, path: Path) -> Path:
        """Name the vertebrae of one file, and return the file of the names."""
        if path.name.lower().endswith(".json"):
            identities = _named_points(name, path, level)
        else:
            identities = _named_map(name, path, output, known, level)
        names = output / f"{name}{NAMES_ENDING}"
        write_json(names, identities)
        say(_line(identities))
        for change in identities.changes[:PRINTED]:
            say(f"  {in_ml(change.ml)} of {change.from_label} to {change.to_label}", "yellow")
        if len(identities.changes) > PRINTED:
            rest = identities.changes[PRINTED:]
            ml = in_ml(sum(change.ml for change in rest))
            say(f"  and {ml} in {len(rest)} more, listed in {names}", "yellow")
        return names

    write_each(files, "identifying", write)
    say(f"{counted(len(files), 'case')} in {output}")


def _stated_level(stated: str | None, files: int) -> str | None:
    """Return the level that the user states of the uppermost vertebra.

    Raises:
        DatasetError: If it is none, or stated of several files.
    """
    from autospine.core.labels import VERTEBRAE

    if stated is None:
        return None
    level = stated.strip().upper()
    if level not in VERTEBRAE:
        raise DatasetError(f"expected a level such as T5 or L1 for --uppermost, found {stated!r}")
    if files > 1:
        raise DatasetError(
            f"expected one file with --uppermost, found {files}: the uppermost vertebra is another in each; "
            "give the command once for each"
        )
    return level


def _named_points(case: str, path: Path, uppermost: str | None) -> "SpineIdentities":
    from autospine.vertebrae.decoding import decode, unfit_statement, with_uppermost
    from autospine.vertebrae.detection_files import read_detections
    from autospine.vertebrae.identities import identities_of, nothing_found
    from autospine.vertebrae.keypoint_detections import found_vertebrae, stand_upside_down, turned_over

    points = read_detections(path)
    notes = []
    upside_down = stand_upside_down(points)
    if upside_down:
        notes.append("head and feet are exchanged: the regions run against the direction of the coordinates")
        points = turned_over(points)
    found = found_vertebrae(points)
    if found is None:
        return nothing_found(case)
    found = with_uppermost(found, uppermost)
    decoded = decode(found)
    notes += unfit_statement(decoded, uppermost)
    if upside_down:  # as in the file
        found = replace(found, positions_mm=found.positions_mm * (1.0, 1.0, -1.0))
    return identities_of(case, found, decoded, notes=notes)


def _named_map(
    case: str, path: Path, output: Path, scheme: "LabelScheme", uppermost: str | None
) -> "SpineIdentities":
    """Write the label map of a case with the right names.

    Raises:
        DatasetError: If it has other labels than the scheme.
    """
    from autospine.io.formats import NRRD_ENDINGS
    from autospine.io.images import read_labels, write_labels
    from autospine.vertebrae.label_files import integers_in
    from autospine.vertebrae.scheme_doubts import fitting_schemes
    from autospine.vertebrae.scheme_segments import scheme_segments
    from autospine.vertebrae.schemes import find_scheme

    volume = read_labels(path)
    present = integers_in(volume.array[0]) - {0}
    if unknown := present - set(scheme.structures(present)) - scheme.beside:
        fitting = fitting_schemes(volume.array[0], volume.grid)
        raise DatasetError(
            f"expected labels of {scheme.title} ({scheme.name}) in {path}, found "
            f"{listed(list(map(str, sorted(unknown))), 8)}; give the scheme that the map has with --scheme"
            f"{f', such as {listed(fitting)}' if fitting else ''}"
        )
    if scheme.tells_levels:
        labels, identities = _renamed(case, volume, scheme, present, uppermost)
    else:
        labels, identities = _told_apart(case, path.name, volume, scheme, present, uppermost)
        scheme = find_scheme("verse")
    keeps_names = path.name.lower().endswith(NRRD_ENDINGS)
    segments = scheme_segments(scheme, integers_in(labels)) if keeps_names else ()
    write_labels(output / path.name, labels, volume.stored, segments)
    return identities


def _renamed(
    case: str, volume: "Volume", scheme: "LabelScheme", present: set[int], uppermost: str | None
) -> "tuple[LabelArray, SpineIdentities]":
    """Return a label map whose labels are levels with the right names, and the names."""
    from autospine.vertebrae.label_changes import label_changes
    from autospine.vertebrae.label_naming import name_labels
    from autospine.vertebrae.scheme_doubts import doubts_of_scheme
    from autospine.vertebrae.schemes import SCHEMES

    labels = volume.array[0]
    named = name_labels(
        case,
        labels,
        volume.grid,
        scheme.integers_in(present),
        whole=scheme.whole_vertebrae,
        uppermost=uppermost,
    )
    doubt = doubts_of_scheme(labels, volume.grid, scheme).in_words(scheme) if scheme.name in SCHEMES else None
    notes = named.identities.notes if doubt is None else (*named.identities.notes, doubt)
    changes = label_changes(named.changes, volume.grid)
    return named.labels, replace(named.identities, notes=notes, changes=changes)


def _told_apart(
    case: str, file: str, volume: "Volume", scheme: "LabelScheme", present: set[int], uppermost: str | None
) -> "tuple[LabelArray, SpineIdentities]":
    """Return a label map in VerSe's integers of one that does not tell vertebrae apart, and their names.

    Of the parts of vertebrae only bodies are taken: arches of neighbours touch, bodies do not.
    """
    from autospine.vertebrae.bone_anchors import BoneAnchors
    from autospine.vertebrae.label_conversion import convert_labels, plan_conversion
    from autospine.vertebrae.schemes import UNNAMED, is_beside_body
    from autospine.vertebrae.unnamed_vertebrae import name_unnamed

    structures = scheme.structures(present)
    plan = plan_conversion(present, scheme, UNNAMED)
    kept = {n: new for n, new in plan.integers.items() if not is_beside_body(structures[n])}
    if left_out := [str(n) for n in sorted(present - set(kept))]:
        say(f"{file}: {listed(left_out, 8)} are left out of the new map", "yellow")
    labels = convert_labels(volume.array[0], kept)
    bones = BoneAnchors.of(volume.array[0], {name: n for n, name in structures.items()})
    return name_unnamed(case, labels, volume.grid, UNNAMED.integers, uppermost, bones)


def _scheme_of_dataset(path: Path) -> "LabelScheme":
    """Return the labels of a dataset as a scheme.

    Raises:
        DatasetError: If it has neither vertebrae by level nor one class of them.
    """
    from autospine.dataset.description import load_labels
    from autospine.vertebrae.dataset_levels import anchor_integers, naming_integers, vertebra_class
    from autospine.vertebrae.schemes import LabelScheme

    space = load_labels(path)
    integers = naming_integers(space)
    if not integers and (plain := vertebra_class(space)):
        integers = {**plain, **anchor_integers(space)}
    if not integers:
        raise DatasetError(
            f"expected vertebrae by level (such as L1) or a class `vertebra` among the labels of {path}, "
            f"found {listed(list(space.names), 8)}"
        )
    return LabelScheme(
        name=str(path),
        title=path.parent.name or str(path),
        integers=integers,
        beside=frozenset(space.known) - frozenset(integers.values()),
        whole_vertebrae=None,
    )


def _line(identities: "SpineIdentities") -> str:
    """Return the vertebrae of a case in one line, with the lowest probability of a name."""
    from autospine.vertebrae.identities import UNKNOWN

    levels = [each.level for each in identities.vertebrae]
    named = [each for each in identities.vertebrae if each.level != UNKNOWN]
    sure = ""
    if named:
        doubtful = min(named, key=lambda each: each.confidence)
        least = math.floor(100 * doubtful.confidence) / 100
        which = f", {doubtful.level} least" if any(each.confidence > least + APART for each in named) else ""
        sure = f" (each with a probability of at least {least:.2f}{which})"
    notes = "".join(f"; {note}" for note in identities.notes)
    return f"{identities.case}: {' '.join(levels) or 'nothing'}{sure}{notes}"
