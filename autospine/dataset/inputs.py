"""Inputs to predict: cases found among files and folders, without a dataset around them."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autospine.core.errors import DatasetError, ImageError, listed
from autospine.dataset.case_table import meant_cases, misnamed_tables, read_case_table, visibly
from autospine.dataset.raw import CHANNEL_NAME, Case, make_case
from autospine.io.dicom import both, dicom_modality, folders_with_images, is_series
from autospine.io.dicom_header import is_dicom, read_header
from autospine.io.formats import (
    ENDINGS,
    check_input,
    file_ending,
    grouped,
    is_dicom_input,
    unread_names,
)
from autospine.storage.atomic import visible
from autospine.storage.file_names import escape_non_utf8, is_utf8, same_name
from autospine.system.log import get_logger

logger = get_logger(__name__)


def find_inputs(
    given: Path | Sequence[Path], channels: Sequence[str]
) -> tuple[tuple[Case, ...], dict[str, str]]:
    """Find the cases to predict.

    Args:
        given: An image, a folder of images (`CASE_0000.ext`, or plain names if there is one channel), a
            folder of DICOM slices, a DICOM file with several frames, or a folder of such folders; or several
            of these. A `cases.csv` beside the images, or beside their folder, states modalities.
        channels: Names of the model's channels.

    Returns:
        The complete cases sorted by name, and for each other case what is wrong with its files.

    Raises:
        DatasetError: If there is nothing to predict in one of them, if it is not clear what is meant, if two
            of them have a case of the same name, or if no case is complete; lists all of them.
    """
    paths = [given] if isinstance(given, Path) else list(dict.fromkeys(given))
    origins: dict[Path, Path] = {}
    dicom: list[Path] = []
    for path in paths:
        files, series = _images_in(path)
        if not files and not series:
            raise DatasetError(
                f"expected images ({', '.join(ENDINGS)}) or DICOM slices in {path}, found "
                f"{_what_is_there(path)}; check -i"
            )
        dicom += [place for place in series if place not in origins]
        origins |= dict.fromkeys((*files, *series), path)
    groups = _by_case([image for image in origins if image not in dicom], len(channels))
    spelt = {same_name(name): name for name in groups}
    for place in dicom:
        name = place.name if place.is_dir() else place.stem
        groups[spelt.setdefault(same_name(name), name)].append((0, place))
    _check_names(groups, origins)
    wrong = {
        name: fault for name, group in sorted(groups.items()) if (fault := _fault(name, group, channels))
    }
    facts = {path: _facts_beside(path) for path in paths}
    _warn_of_rows_passed_over([row for table in facts.values() for row in table.values()], groups)
    cases = []
    for name, group in sorted(groups.items()):
        if name not in wrong:
            images, row = [file for _, file in sorted(group)], facts[origins[group[0][1]]]
            try:
                cases.append(_input(name, images, channels, row.get(same_name(name), {})))
            except ImageError as error:
                wrong[name] = str(error)
    faults = {escape_non_utf8(name): fault for name, fault in sorted(wrong.items())}
    if not cases:
        lines = "\n".join(f"  {name}: {fault}" for name, fault in faults.items())
        where = ", ".join(map(str, paths))
        raise DatasetError(f"expected at least one complete case in {where}, found none:\n{lines}")
    return tuple(cases), faults


def _warn_of_rows_passed_over(rows: Sequence[Mapping[str, str]], cases: Collection[str]) -> None:
    """Warn of rows of `cases.csv` that seem to mean one of the cases by another name."""
    known = {same_name(name) for name in cases}
    unknown = dict.fromkeys(row["case"] for row in rows if same_name(row["case"]) not in known)
    for name, meant in meant_cases(unknown, known).items():
        logger.warning("the row %s of cases.csv belongs to no image: %s", visibly(name), meant)


def _check_names(groups: Mapping[str, Sequence[tuple[int, Path]]], origins: Mapping[Path, Path]) -> None:
    """Refuse cases of one name that come from several inputs: one label map would replace the other."""
    clashes = []
    for name, group in sorted(groups.items()):
        for channel in sorted({channel for channel, _ in group}):
            same = [image for number, image in group if number == channel]
            if len({origins[image] for image in same}) > 1:
                clashes.append(f"{escape_non_utf8(name)}: {', '.join(escape_non_utf8(str(i)) for i in same)}")
    if clashes:
        lines = "\n".join(f"  {clash}" for clash in clashes)
        raise DatasetError(
            "expected every case once among the inputs, found several of the same name; rename one of each, "
            f"or predict them into different folders:\n{lines}"
        )


def _images_in(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files, and the folders of DICOM slices and DICOM files with several frames.

    Raises:
        DatasetError: If slices lie beside other images or beside folders of slices.
    """
    check_input(path)
    if path.is_file():
        return ([path], []) if file_ending(path) else ([], [_frames(path)])
    inside = visible(path)
    # A link to nothing counts as an image, so that it is reported instead of passed over.
    files = [entry for entry in inside if not entry.is_dir() and file_ending(entry)]
    folders = [entry for entry in inside if entry.is_dir() and is_series(entry)]
    loose = [entry for entry in inside if entry not in files and is_dicom(entry)]
    if files or folders:
        _check_apart(path, loose, [*folders, *files])
    elif is_series(path):
        folders = _volumes_of_frames(loose)
        if not folders:
            # What lies beside the slices is told when they are read, from wherever that is asked for.
            return [], [path.resolve()]
    if files or folders:
        known = {*files, *folders, *loose}
        _name_what_is_left(path, [entry for entry in inside if entry not in known], folders)
    return files, folders


def _frames(path: Path) -> Path:
    """Return a DICOM file if it is to be predicted by itself.

    Raises:
        DatasetError: If it is a single slice, or no image.
    """
    header = read_header(path)
    if header.other:
        raise DatasetError(f"expected an image at {path}, found {header.other}; check -i")
    if len(header.slices) == 1:
        raise DatasetError(
            f"expected a volume, found a single slice in {path}; name the folder of all slices with -i"
        )
    return path


def _volumes_of_frames(loose: Sequence[Path]) -> list[Path]:
    """Return DICOM files if there are several, each of several frames and of a series of its own.

    Scanners write one such file per series, and all of a study into one folder.
    """
    images = []
    for file in loose:
        header = read_header(file)
        if header.other is None:
            if not header.slices or header.slices[0].n_frames < 2:
                return []
            images.append(header)
    series = {header.series for header in images}
    return [header.path for header in images] if 1 < len(series) == len(images) else []


def _check_apart(path: Path, loose: Sequence[Path], others: Sequence[Path]) -> None:
    """Refuse DICOM images beside other images, and name DICOM files of other kinds there.

    Raises:
        DatasetError: If there are any, because they may be what was meant.
    """
    headers = [read_header(file) for file in loose]
    slices = [header.path.name for header in headers if header.other is None]
    if slices:
        raise DatasetError(both(path, slices, [other.name for other in others]))
    if unused := grouped((header.path.name, header.other or "") for header in headers):
        logger.warning("DICOM files in %s that are no slices are left out: %s", path, unused)


def _name_what_is_left(path: Path, rest: Sequence[Path], known: Collection[Path]) -> None:
    """Warn of folders with images that are not searched, and of files that are not read."""
    if below := _below(path, known):
        logger.warning("images in folders of %s are not looked at: %s", path, listed(below))
    # A folder with the name of an image is one that was not unpacked as it should be.
    unread = [entry for entry in rest if file_ending(entry) or not entry.is_dir()]
    if names := unread_names(entry for entry in unread if entry.name not in below):
        logger.warning("files in %s that are no images AutoSpine reads are left out: %s", path, listed(names))


def _below(path: Path, known: Collection[Path] = ()) -> list[str]:
    """Return the paths of folders with images within another, without those in it that are known."""
    found = (folder for folder in folders_with_images(path, known) if folder != path)
    return sorted(str(folder.relative_to(path)) for folder in found)


def _what_is_there(path: Path) -> str:
    """Describe what a folder without images holds instead."""
    headers = [read_header(file) for file in visible(path) if is_dicom(file)]
    if others := grouped((header.path.name, header.other) for header in headers if header.other):
        return f"only {others}"
    if below := _below(path):
        return f"none there but in folders below: {listed(below)}"
    unread = unread_names(entry for entry in visible(path) if not entry.is_dir())
    return f"only {listed(unread)}" if unread else "none"


def _by_case(files: Sequence[Path], n_channels: int) -> dict[str, list[tuple[int, Path]]]:
    """Group files by case, each with the number of its channel.

    A number beyond the channels belongs to the name, as in scan_2024, unless there is a scan_0000 too.
    """
    stems = {file: file.name[: -len(file_ending(file) or "")] for file in files}
    numbered = {file: match for file, stem in stems.items() if (match := CHANNEL_NAME.fullmatch(stem))}
    begun = {same_name(match[1]) for match in numbered.values() if int(match[2]) == 0}
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    spelt: dict[str, str] = {}
    for file, stem in stems.items():
        match = numbered.get(file)
        if match and (same_name(match[1]) in begun or int(match[2]) < n_channels):
            name, channel = match[1], int(match[2])
        else:
            name, channel = stem, 0
        # Files belong together whose names look the same; the case goes by the first of them.
        groups[spelt.setdefault(same_name(name), name)].append((channel, file))
    return groups


def _fault(name: str, group: Sequence[tuple[int, Path]], channels: Sequence[str]) -> str | None:
    """Return what is wrong with the files of a case by their names; None if nothing is."""
    if not name.strip() or name.startswith("."):
        return (
            "expected a name that does not begin with a dot, as its label map would be hidden, found "
            f"{', '.join(escape_non_utf8(file.name) for _, file in group)}; rename the image"
        )
    strange = [escape_non_utf8(str(file)) for _, file in group if not is_utf8(file)]
    if strange:
        return f"expected names in UTF-8, found {', '.join(strange)}; rename what is not"
    if sorted(channel for channel, _ in group) == list(range(len(channels))):
        return None
    wanted = ", ".join(f"{name}_{index:04d} ({channel})" for index, channel in enumerate(channels))
    given = ", ".join(file.name for _, file in group)
    n = len(channels)
    return f"expected {n} file{'s' if n > 1 else ''}, {wanted}, found {given}; add, rename or remove files"


def _facts_beside(path: Path) -> dict[str, dict[str, str]]:
    """Read the `cases.csv` in the folder of the inputs, or in the dataset whose `imagesTs` it is."""
    folder = (path if path.is_dir() else path.parent).resolve()
    for place in (folder, folder.parent):
        if os.path.lexists(place / "cases.csv"):
            facts, faults = read_case_table(place / "cases.csv")
            if faults:
                raise DatasetError(f"expected a sound {place / 'cases.csv'}, found: {'; '.join(faults)}")
            return facts
    for fault in misnamed_tables(folder):
        logger.warning("%s", fault)
    return {}


def _input(name: str, images: Sequence[Path], channels: Sequence[str], facts: Mapping[str, str]) -> Case:
    """Return a case to predict; the modality in a DICOM header counts more than any other statement.

    Raises:
        ImageError: If the header states one that is neither CT nor MR, and the row of `cases.csv` none.
    """
    case = make_case(name, images, None, channels, facts)
    if not is_dicom_input(images[0]):
        return case
    try:
        stated = dicom_modality(images[0], channels)
    except ImageError:
        if facts.get("modality"):
            return case
        raise
    return replace(case, modality=stated) if stated else case
