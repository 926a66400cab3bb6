"""Inputs to predict: cases found among files and folders, without a dataset around them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autospine.core.errors import DatasetError
from autospine.dataset.case_table import read_case_table
from autospine.dataset.raw import CHANNEL_NAME, Case, make_case
from autospine.io.dicom import is_series, series_modality
from autospine.io.formats import ENDINGS, check_input, file_ending
from autospine.storage.atomic import visible
from autospine.storage.file_names import escape_non_utf8, is_utf8
from autospine.system.log import get_logger

logger = get_logger(__name__)

FOLDERS_MENTIONED = 3
"""Most folders that the warning about images elsewhere names."""


def find_inputs(path: Path, channels: Sequence[str]) -> tuple[tuple[Case, ...], dict[str, str]]:
    """Find the cases to predict.

    Args:
        path: An image, a folder of images (`CASE_0000.ext`, or plain names if there is one channel), a
            folder of DICOM slices, or a folder of such folders. A `cases.csv` beside the images, or beside
            their folder, states modalities.
        channels: Names of the model's channels.

    Returns:
        The complete cases sorted by name, and for each other case what is wrong with its files.

    Raises:
        DatasetError: If there is nothing to predict, or no case is complete; lists all of them.
    """
    files, folders = _images_in(path)
    groups = _by_case(files, len(channels))
    for folder in folders:
        groups[folder.name].append((0, folder))
    if not groups:
        raise DatasetError(
            f"expected images ({', '.join(ENDINGS)}) or DICOM slices in {path}, found none; check -i"
        )
    wrong = {
        name: fault for name, group in sorted(groups.items()) if (fault := _fault(name, group, channels))
    }
    faults = {escape_non_utf8(name): fault for name, fault in wrong.items()}
    if len(faults) == len(groups):
        listed = "\n".join(f"  {name}: {fault}" for name, fault in faults.items())
        raise DatasetError(f"expected at least one complete case in {path}, found none:\n{listed}")
    facts = _facts_beside(path)
    cases = tuple(
        _input(name, [file for _, file in sorted(group)], channels, facts.get(name, {}))
        for name, group in sorted(groups.items())
        if name not in wrong
    )
    return cases, faults


def _images_in(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files, and the folders of DICOM slices."""
    check_input(path)
    if path.is_file():
        return [path], []
    inside = visible(path)
    # A link to nothing counts as an image, so that it is reported instead of passed over.
    files = [entry for entry in inside if not entry.is_dir() and file_ending(entry)]
    folders = [entry for entry in inside if entry.is_dir() and is_series(entry)]
    if not files and not folders and is_series(path):
        folders = [path.resolve()]
    rest = [entry for entry in inside if entry.is_dir() and entry not in folders]
    others = [entry.name for entry in rest if _has_images(entry)]
    if others and (files or folders):
        logger.warning(
            "images in folders of %s are not looked at: %s%s",
            path,
            ", ".join(others[:FOLDERS_MENTIONED]),
            ", ..." if len(others) > FOLDERS_MENTIONED else "",
        )
    return files, folders


def _has_images(folder: Path) -> bool:
    """Whether a folder holds image files itself."""
    return any(file_ending(entry) and entry.is_file() for entry in visible(folder))


def _by_case(files: Sequence[Path], n_channels: int) -> dict[str, list[tuple[int, Path]]]:
    """Group files by case, each with the number of its channel.

    A number beyond the channels belongs to the name, as in scan_2024, unless there is a scan_0000 too.
    """
    stems = {file: file.name[: -len(file_ending(file) or "")] for file in files}
    numbered = {file: match for file, stem in stems.items() if (match := CHANNEL_NAME.fullmatch(stem))}
    begun = {match[1] for match in numbered.values() if int(match[2]) == 0}
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for file, stem in stems.items():
        match = numbered.get(file)
        if match and (match[1] in begun or int(match[2]) < n_channels):
            groups[match[1]].append((int(match[2]), file))
        else:
            groups[stem].append((0, file))
    return groups


def _fault(name: str, group: Sequence[tuple[int, Path]], channels: Sequence[str]) -> str | None:
    """Return what is wrong with the names of a case's files; None if nothing is."""
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
        if (place / "cases.csv").is_file():
            facts, faults = read_case_table(place / "cases.csv")
            if faults:
                raise DatasetError(f"expected a sound {place / 'cases.csv'}, found: {'; '.join(faults)}")
            return facts
    return {}


def _input(name: str, images: Sequence[Path], channels: Sequence[str], facts: Mapping[str, str]) -> Case:
    """Return a case to predict; the modality in a DICOM header counts more than any other statement."""
    case = make_case(name, images, None, channels, facts)
    stated = series_modality(images[0]) if images[0].is_dir() else None
    return replace(case, modality=stated) if stated else case
