"""A raw dataset: nnU-Net's v2 layout, with an optional `cases.csv`.

Loading reads names and JSON only; what is inside the images is checked by `autospine.dataset.checks`.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autospine.core.errors import DatasetError
from autospine.core.labels import LabelSpace, parse_labels
from autospine.core.modality import guess_modality, modality_of_channels
from autospine.core.types import Modality
from autospine.io.dicom import is_series, series_modality
from autospine.io.formats import ENDINGS, check_input, file_ending
from autospine.io.images import Volume
from autospine.storage.atomic import is_utf8, printable
from autospine.system.log import get_logger

logger = get_logger(__name__)

MENTIONED = 3
"""Names of folders that a message has."""

COLUMNS = ("case", "modality", "site", "subject")
"""Of cases.csv."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One case: its files and what is known about it."""

    name: str
    """Unique in its dataset."""

    images: tuple[Path, ...]
    """One file per channel, or one folder of DICOM slices."""

    labels: Path | None
    """None for cases to predict."""

    modality: Modality | None
    """None where only the intensities tell."""

    site: str | None
    """Where the image was made."""

    subject: str
    """Cases of one subject never lie on both sides of a split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A raw dataset whose files fit together by name."""

    folder: Path
    """Of the raw dataset."""

    name: str
    """The folder's."""

    channels: tuple[str, ...]
    """Names in order."""

    labels: LabelSpace
    """What the integers in the label files mean."""

    cases: tuple[Case, ...]
    """Training cases by name."""

    test_cases: tuple[Case, ...]
    """Of `imagesTs`; with labels where `labelsTs` has them."""

    file_ending: str
    """Of images and labels, dot included."""


def load_dataset(folder: Path) -> Dataset:
    """Read a dataset's description and list its cases.

    Raises:
        DatasetError: naming everything that does not fit: a bad dataset.json, images without labels,
            labels without images, missing channels, unknown cases in cases.csv.
    """
    dataset, faults = inspect_dataset(folder)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise DatasetError(f"expected complete cases in {folder}, found {len(faults)} faults:\n{listed}")
    return dataset


def load_labels(path: Path) -> LabelSpace:
    """The labels that a dataset.json describes, whatever the file is called.

    Raises:
        DatasetError: if the file is missing or contradicts itself.
    """
    described = _description(path)
    return parse_labels(described["labels"], described.get("regions_class_order"))


def known_cases(folder: Path) -> tuple[Case, ...]:
    """The complete cases of a dataset folder; none where it is no dataset."""
    try:
        dataset, _ = inspect_dataset(folder)
    except DatasetError:
        return ()
    return (*dataset.cases, *dataset.test_cases)


def inspect_dataset(folder: Path) -> tuple[Dataset, tuple[str, ...]]:
    """The cases that are complete, and what is wrong with the names of the others.

    Raises:
        DatasetError: if dataset.json or cases.csv cannot be understood.
    """
    described = _description(folder / "dataset.json")
    channels = _channel_names(described, folder)
    ending = described.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise DatasetError(
            f"expected file_ending in {folder / 'dataset.json'} among {', '.join(ENDINGS)}, "
            f"found {ending!r}; convert the images"
        )
    labels = parse_labels(described["labels"], described.get("regions_class_order"))
    facts, faults = _case_facts(folder / "cases.csv")
    training, names, missing = _list_cases(folder, "Tr", channels, ending, facts)
    testing, test_names, missing_test = _list_cases(folder, "Ts", channels, ending, facts)
    faults += missing + missing_test
    faults += [f"{name}: in cases.csv but without image" for name in sorted(set(facts) - names - test_names)]
    if not names:
        faults.append(f"no images CASE_0000{ending} in {folder / 'imagesTr'}")
    dataset = Dataset(
        folder=folder,
        name=folder.name,
        channels=channels,
        labels=labels,
        cases=tuple(training),
        test_cases=tuple(testing),
        file_ending=ending,
    )
    return dataset, tuple(faults)


def ignored_files(dataset: Dataset) -> tuple[str, ...]:
    """Files beside the images and labels that do not have the dataset's ending, as `imagesTr/NAME`."""
    folders = [dataset.folder / f"{kind}{part}" for part in ("Tr", "Ts") for kind in ("images", "labels")]
    return tuple(
        f"{folder.name}/{file.name}"
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if not file.name.startswith(".") and not file.name.endswith(dataset.file_ending)
    )


def case_modality(case: Case, volume: Volume) -> Modality:
    """CT or MR: as stated, else from the first channel's intensities."""
    return case.modality or guess_modality(volume.array[0])


def find_inputs(path: Path, channels: Sequence[str]) -> tuple[tuple[Case, ...], dict[str, str]]:
    """Cases to predict.

    Args:
        path: an image, a folder of images (`CASE_0000.ext`; plain names where there is one channel), a
            folder of DICOM slices, or a folder of such folders. A `cases.csv` beside the images, or beside
            their folder, states modalities.
        channels: of the model.

    Returns:
        The complete cases in the order of their names, and what is wrong with the files of each other one.

    Raises:
        DatasetError: if there is nothing to predict, or no case is complete; lists all of them.
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
        name: fault for name, found in sorted(groups.items()) if (fault := _fault(name, found, channels))
    }
    faults = {printable(name): fault for name, fault in wrong.items()}
    if len(faults) == len(groups):
        listed = "\n".join(f"  {name}: {fault}" for name, fault in faults.items())
        raise DatasetError(f"expected at least one complete case in {path}, found none:\n{listed}")
    facts = _facts_beside(path)
    cases = tuple(
        _input(name, [file for _, file in sorted(found)], channels, facts.get(name, {}))
        for name, found in sorted(groups.items())
        if name not in wrong
    )
    return cases, faults


def _images_in(path: Path) -> tuple[list[Path], list[Path]]:
    """Image files, and folders of DICOM slices."""
    check_input(path)
    if path.is_file():
        return [path], []
    inside = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    # A link that leads nowhere is an image that is missed, not one that is not there.
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
            ", ".join(others[:MENTIONED]),
            ", ..." if len(others) > MENTIONED else "",
        )
    return files, folders


def _has_images(folder: Path) -> bool:
    """Whether files right in a folder are images."""
    return any(file_ending(entry) and entry.is_file() for entry in folder.iterdir())


def _by_case(files: Sequence[Path], n_channels: int) -> dict[str, list[tuple[int, Path]]]:
    """Files by case, each with the number of its channel.

    A number beyond the channels belongs to the name, as in scan_2024, unless there is a scan_0000 too.
    """
    stems = {file: file.name[: -len(file_ending(file) or "")] for file in files}
    numbered = {file: match for file, stem in stems.items() if (match := _CHANNEL.fullmatch(stem))}
    begun = {match[1] for match in numbered.values() if int(match[2]) == 0}
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for file, stem in stems.items():
        match = numbered.get(file)
        if match and (match[1] in begun or int(match[2]) < n_channels):
            groups[match[1]].append((int(match[2]), file))
        else:
            groups[stem].append((0, file))
    return groups


def _fault(name: str, found: Sequence[tuple[int, Path]], channels: Sequence[str]) -> str | None:
    """What is wrong with the names of a case's files; None if nothing is."""
    strange = [printable(str(file)) for _, file in found if not is_utf8(file)]
    if strange:
        return f"expected names in UTF-8, found {', '.join(strange)}; rename what is not"
    if sorted(channel for channel, _ in found) == list(range(len(channels))):
        return None
    return _incomplete(name, [file for _, file in found], channels)


def _incomplete(name: str, files: Sequence[Path], channels: Sequence[str]) -> str:
    wanted = ", ".join(f"{name}_{index:04d} ({channel})" for index, channel in enumerate(channels))
    n = len(channels)
    return (
        f"expected {n} file{'s' if n > 1 else ''}, {wanted}, found {', '.join(file.name for file in files)}; "
        "add, rename or remove files"
    )


def _facts_beside(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a `cases.csv` in the folder of the inputs, or in the dataset whose `imagesTs` it is."""
    folder = (path if path.is_dir() else path.parent).resolve()
    for place in (folder, folder.parent):
        if (place / "cases.csv").is_file():
            facts, faults = _case_facts(place / "cases.csv")
            if faults:
                raise DatasetError(f"expected a sound {place / 'cases.csv'}, found: {'; '.join(faults)}")
            return facts
    return {}


def _input(name: str, images: Sequence[Path], channels: Sequence[str], facts: Mapping[str, str]) -> Case:
    case = _case(name, images, None, channels, facts)
    stated = series_modality(images[0]) if images[0].is_dir() else None
    return replace(case, modality=stated) if stated else case


def _description(path: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"expected {path}, found none; write channel_names, labels and file_ending into it "
            "as nnU-Net v2 does"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"expected JSON in {path}, found {error}; mend the file") from None
    labels = described.get("labels") if isinstance(described, dict) else None
    if not isinstance(labels, dict) or not all(map(_is_label, labels.values())):
        raise DatasetError(
            f"expected `labels` (name -> integer, or integers for regions) in {path}, "
            f"found {labels}; mend them"
        )
    order = described.get("regions_class_order")
    if order is not None and not _is_label(order):
        raise DatasetError(f"expected integers as `regions_class_order` in {path}, found {order}; mend them")
    return described


def _is_label(value: object) -> bool:
    return type(value) is int or (isinstance(value, list) and all(type(each) is int for each in value))


def _channel_names(described: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    names = described.get("channel_names") or described.get("modality")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise DatasetError(
            f'expected `channel_names` such as {{"0": "CT"}} in {folder / "dataset.json"}, found {names}; '
            "mend the file"
        )
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _case_facts(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Rows of cases.csv by case, and what is wrong with them."""
    if not path.is_file():
        return {}, []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = tuple(table.fieldnames or ())
            rows = [{key: (row[key] or "").strip() for key in columns} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"expected a table in {path}, found {error}; save it as CSV in UTF-8") from None
    if "case" not in columns or not set(columns) <= set(COLUMNS):
        raise DatasetError(
            f"expected the columns {', '.join(COLUMNS)} (all but `case` may be left out) in {path}, "
            f"found {', '.join(map(str, columns)) or 'none'}; mend its first line"
        )
    faults = [
        f"{row['case']}: modality {row['modality']!r} in cases.csv is neither CT nor MR"
        for row in rows
        if row.get("modality", "").upper() not in ("CT", "MR", "")
    ]
    listed = Counter(row["case"] for row in rows)
    faults += [f"{name}: {n} times in cases.csv" for name, n in listed.items() if n > 1]
    return {row["case"]: row for row in rows}, faults


def _list_cases(
    folder: Path, part: str, channels: Sequence[str], ending: str, facts: Mapping[str, Mapping[str, str]]
) -> tuple[list[Case], set[str], list[str]]:
    """Complete cases of `imagesTr` or `imagesTs`, names of all that have an image, and what is missing."""
    images: dict[str, dict[int, Path]] = defaultdict(dict)
    faults: list[str] = []
    for file in _files(folder / f"images{part}", ending):
        match = _CHANNEL.fullmatch(file.name.removesuffix(ending))
        if match:
            images[match[1]][int(match[2])] = file
        else:
            faults.append(
                f"{file.name.removesuffix(ending)}: no channel number in images{part}/{file.name}; "
                f"name it CASE_0000{ending}"
            )
    labels = {file.name.removesuffix(ending): file for file in _files(folder / f"labels{part}", ending)}
    cases = []
    for name, files in sorted(images.items()):
        missing = _missing(name, files, len(channels), part == "Tr" and name not in labels, ending)
        faults += missing
        if not missing:
            cases.append(
                _case(
                    name, [files[i] for i in sorted(files)], labels.get(name), channels, facts.get(name, {})
                )
            )
    faults += [
        f"{name}: label without image; add images{part}/{name}_0000{ending} or remove the label"
        for name in sorted(set(labels) - set(images))
    ]
    return cases, set(images), faults


def _missing(
    name: str, files: Mapping[int, Path], n_channels: int, unlabelled: bool, ending: str
) -> list[str]:
    faults = []
    if sorted(files) != list(range(n_channels)):
        wanted = ", ".join(f"{index:04d}" for index in range(n_channels))
        found = ", ".join(f"{index:04d}" for index in sorted(files))
        faults.append(
            f"{name}: expected {n_channels} channels ({wanted}), found {found}; complete the images "
            "or mend channel_names"
        )
    if unlabelled:
        faults.append(f"{name}: image without label; add labelsTr/{name}{ending} or remove the image")
    return faults


def _case(
    name: str, images: Sequence[Path], labels: Path | None, channels: Sequence[str], facts: Mapping[str, str]
) -> Case:
    stated = facts.get("modality", "").upper()
    modality: Modality | None = "CT" if stated == "CT" else "MR" if stated == "MR" else None
    return Case(
        name=name,
        images=tuple(images),
        labels=labels,
        modality=modality or modality_of_channels(channels),
        site=facts.get("site") or None,
        subject=facts.get("subject") or name,
    )


def _files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith(".")
    )
