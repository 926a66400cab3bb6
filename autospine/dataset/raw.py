"""A raw dataset: nnU-Net's v2 layout, with an optional `cases.csv`.

Loading reads names and JSON only; the content of the images is checked by `autospine.dataset.checks`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autospine.core.errors import FAULTS_MENTIONED, DatasetError, counted, listed
from autospine.core.labels import LabelSpace, parse_labels
from autospine.core.modality import guess_modality, modality_of_channels
from autospine.core.types import Modality
from autospine.dataset.case_table import CASE_TABLE, misnamed_tables, read_case_table, unknown_cases
from autospine.dataset.description import channel_names, file_ending, read_description, tissue_names
from autospine.dataset.excluded_cases import left_in
from autospine.io.formats import NRRD_ENDINGS
from autospine.io.images import Volume
from autospine.storage.atomic import visible
from autospine.storage.file_names import name_fault, same_name

SEGMENTATION = NRRD_ENDINGS[0]
"""Ending of label maps of 3D Slicer, which may stand beside images of any format."""

CHANNEL_NAME = re.compile(r"(.+)_(\d{4})")
"""Stem of an image file: the case's name and the channel's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One case: its files and what is known about it."""

    name: str
    """Name, unique in its dataset."""

    images: tuple[Path, ...]
    """One file per channel, or one folder of DICOM slices."""

    labels: Path | None
    """Label map; None for cases to predict."""

    modality: Modality | None
    """None if it is stated nowhere, so that it is guessed from the intensities."""

    site: str | None
    """Hospital or scanner where the image was made."""

    subject: str
    """Person or specimen; cases of one subject never lie on both sides of a split."""

    tissues: Path | None = None
    """Tissue map, from which images are made in training; None for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A raw dataset whose files fit together by name."""

    folder: Path
    """Folder of the raw dataset."""

    name: str
    """Name of the folder."""

    channels: tuple[str, ...]
    """Names of the channels in order."""

    labels: LabelSpace
    """Meaning of the integers in the label files."""

    cases: tuple[Case, ...]
    """Training cases, sorted by name, without those that `excluded.csv` names."""

    test_cases: tuple[Case, ...]
    """Cases in `imagesTs`, with labels where `labelsTs` has them."""

    file_ending: str
    """Ending of images and labels, dot included."""

    notes: tuple[str, ...] = ()
    """Statements of dataset.json that the folders do not bear out."""

    tissues: Mapping[int, str] = field(default_factory=dict)
    """Name of the tissue or structure of each code in the tissue maps."""


def load_dataset(folder: Path) -> Dataset:
    """Read a dataset's description and list its cases.

    Raises:
        DatasetError: If something does not fit (names all of it): a bad dataset.json, images without
            labels, labels without images, missing channels, unknown cases in cases.csv.
    """
    dataset, faults = inspect_dataset(folder)
    if faults:
        found, lines = counted(len(faults), "fault"), "".join(f"\n  {fault}" for fault in faults)
        raise DatasetError(f"expected complete cases in {folder}, found {found}:{lines}")
    return dataset


def known_cases(folder: Path) -> tuple[Case, ...]:
    """Return the complete cases of a dataset folder; none if it holds no dataset."""
    try:
        dataset, _ = inspect_dataset(folder)
    except DatasetError:
        return ()
    return (*dataset.cases, *dataset.test_cases)


def inspect_dataset(folder: Path) -> tuple[Dataset, tuple[str, ...]]:
    """Return a dataset with its complete cases, and what is wrong with the names of the others.

    Raises:
        DatasetError: If dataset.json or cases.csv cannot be understood.
    """
    described = read_description(folder / "dataset.json")
    channels = channel_names(described, folder)
    ending = file_ending(described, folder)
    labels = parse_labels(described["labels"], described.get("regions_class_order"))
    facts, faults = read_case_table(folder / CASE_TABLE)
    faults += misnamed_tables(folder)
    training, names, missing = _list_cases(folder, "Tr", channels, ending, facts)
    testing, test_names, missing_test = _list_cases(folder, "Ts", channels, ending, facts)
    faults += missing + missing_test
    imaged = {same_name(name) for name in names | test_names}
    if names:
        faults += unknown_cases(
            (row["case"] for name, row in sorted(facts.items()) if name not in imaged), imaged
        )
    elif not any(file.name.endswith(ending) for file in visible(folder / "imagesTr")):
        faults.insert(0, _no_images(folder, ending))
    training, tissues, unclear = _with_tissues(training, folder, described, ending)
    faults += unclear
    faults += _named_elsewhere(described.get("dataset"), folder, training)
    left, excluded = left_in(folder, [case.name for case in training], imaged)
    dataset = Dataset(
        folder=folder,
        name=folder.name,
        channels=channels,
        labels=labels,
        cases=tuple(case for case in training if case.name in left),
        test_cases=tuple(testing),
        file_ending=ending,
        notes=(*_miscounted(described.get("numTraining"), len(names)), *excluded),
        tissues=tissues,
    )
    return dataset, tuple(faults)


def case_modality(case: Case, volume: Volume) -> Modality:
    """Return the modality as stated, else as guessed from the first channel's intensities."""
    return case.modality or guess_modality(volume.array[0])


def _named_elsewhere(stated: object, folder: Path, cases: Sequence[Case]) -> list[str]:
    """Return a fault if dataset.json names other files as its cases than the folders hold.

    Args:
        stated: nnU-Net's `dataset`: for each case the paths of its `images` and of its `label`, absolute or
            from the folder of the dataset; anything else is no such list.
        folder: Folder of the dataset.
        cases: Complete training cases in the folders.
    """
    if not isinstance(stated, dict):
        return []
    found = {
        same_name(case.name): [os.path.realpath(file) for file in (*case.images, case.labels or "")]
        for case in cases
    }
    other = [
        name for name, entry in stated.items() if found.pop(same_name(name), None) != _files_of(entry, folder)
    ]
    other += found
    if not other:
        return []
    return [
        "expected the files of imagesTr and labelsTr as `dataset` of dataset.json, found others for "
        f"{listed(sorted(other), FAULTS_MENTIONED)}; put the files, or "
        "links to them, into these folders, and remove `dataset`"
    ]


def _files_of(entry: object, folder: Path) -> list[str]:
    """Return the paths of the images and the label that an entry of `dataset` names."""
    files = entry if isinstance(entry, dict) else {}
    images = files.get("images")
    paths = [*(images if isinstance(images, list) else ()), files.get("label")]
    return [os.path.realpath(folder / str(path).replace("\0", "")) for path in paths]


def _miscounted(stated: object, n_cases: int) -> tuple[str, ...]:
    """Return a note if dataset.json counts other training cases than there are."""
    if type(stated) is not int or stated == n_cases:
        return ()
    return (f"numTraining in dataset.json is {stated}, and imagesTr has {counted(n_cases, 'case')}",)


def _list_cases(
    folder: Path, part: str, channels: Sequence[str], ending: str, facts: Mapping[str, Mapping[str, str]]
) -> tuple[list[Case], set[str], list[str]]:
    """List the cases of `imagesTr` or `imagesTs`.

    Args:
        folder: Folder of the dataset.
        part: `Tr` or `Ts`.
        channels: Names of the channels.
        ending: Ending of the images; label maps may be segmentations of 3D Slicer beside them.
        facts: Rows of `cases.csv`, by `same_name` of the case.

    Returns:
        The complete cases, the names of all that have an image, and what is missing.
    """
    images: dict[str, dict[int, Path]] = defaultdict(dict)
    spelt: dict[str, str] = {}
    faults: list[str] = []
    for file in _files(folder / f"images{part}", ending):
        stem = file.name[: -len(ending)]
        match = CHANNEL_NAME.fullmatch(stem)
        if match:
            # Channels belong together whose names look the same; the case goes by the first of them.
            name = spelt.setdefault(same_name(match[1]), match[1])
            if int(match[2]) in images[name]:
                faults.append(
                    f"{name}: two images of channel {match[2]} whose names look the same; remove one"
                )
            images[name][int(match[2])] = file
        else:
            faults.append(f"{stem}: no channel number in images{part}/{file.name}; name it CASE_0000{ending}")
    labels, twice = _label_files(folder / f"labels{part}", ending)
    faults += twice + _numbered_labels(labels, spelt, ending)
    cases = []
    for name, files in sorted(images.items()):
        if fault := name_fault(name):
            faults.append(
                f"{name}: expected a name that files can have on every system, found {fault}; rename it"
            )
            continue
        missing = _missing(name, files, len(channels), part == "Tr" and same_name(name) not in labels, ending)
        faults += missing
        if not missing:
            cases.append(
                make_case(
                    *(name, [files[i] for i in sorted(files)], labels.get(same_name(name)), channels),
                    facts.get(same_name(name), {}),
                )
            )
    if images or part == "Ts":  # else it is said once that there are no images
        faults += [
            f"{name}: label without image; add images{part}/{name}_0000{ending} or remove the label"
            for name in sorted(set(labels) - set(spelt))
        ]
    return cases, set(images), faults


def _with_tissues(
    cases: Sequence[Case], folder: Path, described: Mapping[str, Any], ending: str
) -> tuple[list[Case], dict[int, str], list[str]]:
    """Return the training cases with the tissue maps of `tissuesTr`, the maps' names, and faults of files."""
    maps, faults = _label_files(folder / "tissuesTr", ending)
    if not maps:
        return list(cases), {}, faults
    known = {same_name(case.name) for case in cases}
    faults += [
        f"{file.name}: tissue map without case; add its image and labels, or remove the map"
        for name, file in sorted(maps.items())
        if name not in known
    ]
    mapped = [replace(case, tissues=maps.get(same_name(case.name))) for case in cases]
    return mapped, tissue_names(described), faults


def _label_files(folder: Path, ending: str) -> tuple[dict[str, Path], list[str]]:
    """Return the label maps of a folder by `same_name` of the case, and the cases that have two."""
    found: dict[str, Path] = {}
    faults = []
    for file in sorted({*_files(folder, ending), *_files(folder, SEGMENTATION)}):
        own = SEGMENTATION if file.name.lower().endswith(SEGMENTATION) else ending
        name = file.name[: -len(own)]
        other = found.setdefault(same_name(name), file)
        if other != file:
            faults.append(f"{name}: two label maps, {other.name} and {file.name}; remove one")
    return found, faults


def _numbered_labels(labels: dict[str, Path], imaged: Collection[str], ending: str) -> list[str]:
    """Take labels that are named as channels for those of their cases, and return a fault for each."""
    faults = []
    for name, file in sorted(labels.items()):
        match = CHANNEL_NAME.fullmatch(name)
        if match and match[1] in imaged and name not in imaged and match[1] not in labels:
            labels[match[1]] = labels.pop(name)
            right = match[1] + (SEGMENTATION if file.name.endswith(SEGMENTATION) else ending)
            faults.append(
                f"{match[1]}: expected a label without a channel number, found "
                f"{file.parent.name}/{file.name}; name it {right}"
            )
    return faults


def _no_images(folder: Path, ending: str) -> str:
    """Say what there is in the place of training images."""
    place = folder / "imagesTr"
    if not place.is_dir():
        there = listed([entry.name for entry in visible(folder) if entry.is_dir()], FAULTS_MENTIONED)
        return (
            f"expected the folder imagesTr in {folder}, found {there or 'no folders'}; put the images there"
        )
    there = listed([file.name for file in visible(place)])
    return f"expected images CASE_0000{ending} in {place}, found {there or 'none'}; put them there"


def _missing(
    name: str, files: Mapping[int, Path], n_channels: int, unlabelled: bool, ending: str
) -> list[str]:
    faults = []
    if sorted(files) != list(range(n_channels)):
        wanted = ", ".join(f"{index:04d}" for index in range(n_channels))
        found = ", ".join(f"{index:04d}" for index in sorted(files))
        faults.append(
            f"{name}: expected {counted(n_channels, 'channel')} ({wanted}), found {found}; complete the "
            "images or mend channel_names"
        )
    if unlabelled:
        faults.append(f"{name}: image without label; add labelsTr/{name}{ending} or remove the image")
    return faults


def make_case(
    name: str, images: Sequence[Path], labels: Path | None, channels: Sequence[str], facts: Mapping[str, str]
) -> Case:
    """Return a case from its files and its row of `cases.csv`."""
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
    """Return the files of a folder with an ending, in any capitals."""
    return [file for file in visible(folder) if file.name.lower().endswith(ending)]
