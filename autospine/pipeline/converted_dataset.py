"""A public dataset of the spine as a raw dataset: its images linked, its label maps in one scheme."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autospine.core.errors import DatasetError, FailedCasesError
from autospine.core.geometry import difference
from autospine.core.types import LabelArray
from autospine.dataset.new_dataset import WrittenCase, built_aside, write_description
from autospine.io.images import Volume, read_labels, write_labels
from autospine.storage.serialization import write_json
from autospine.system.log import get_logger
from autospine.vertebrae.dataset_releases import DatasetRelease, ReleasedCase, find_cases
from autospine.vertebrae.label_conversion import convert_labels, plan_conversion
from autospine.vertebrae.label_files import integers_in, write_each
from autospine.vertebrae.scheme_doubts import doubts_of_scheme
from autospine.vertebrae.schemes import LabelScheme, find_scheme

logger = get_logger(__name__)

TARGET = "spineps-instance"
"""Scheme of the label maps of every converted dataset: VerSe's integers with TPTBox's for other structures,
which hold all that releases label but for the sides of ribs."""

SPLITS = "splits_final.json"
"""Folds of a release that has cases for validation, in the format of nnU-Net."""


CENTROIDS = "centroids"
"""Beginning of the names of the folders of centres, `centroidsTr` and `centroidsTs`, which nothing reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedDataset:
    """A raw dataset that was made of a release."""

    training: int
    """Number of cases in `imagesTr`."""

    test: int
    """Number of cases in `imagesTs`."""

    splits: bool
    """Whether the release has its own validation cases, so that there is a `splits_final.json`."""

    notes: tuple[str, ...]
    """Files and structures that were left out, merged or lost, in words."""

    failed: FailedCasesError | None
    """Cases that could not be converted; None if all were."""


def convert_dataset(
    source: Path, release: DatasetRelease, folder: Path, *, overwrite: bool
) -> ConvertedDataset:
    """Write a public dataset as a raw dataset; cases that fail are left out and named.

    Images are links to the files of the release, or copies where the file system has no links; so are label
    maps that stay as they are, and files of centres. Cases for training and validation go to `imagesTr`,
    those for testing to `imagesTs`.

    Args:
        source: Folder of the release.
        release: Its layout.
        folder: The new dataset's folder, such as `raw/Dataset010_VerSe`.
        overwrite: Whether to replace a dataset that is there.

    Raises:
        DatasetError: If the folder holds no case of the release.
        FailedCasesError: If every case has failed.
        WorkspaceError: If the new folder exists and may not be replaced.
    """
    cases, notes = find_cases(source, release)
    by_name = {case.name: case for case in cases}
    with built_aside(folder, overwrite=overwrite) as draft:
        made = _MadeDataset(draft, release)
        failed = None
        try:
            write_each(
                {name: case.image for name, case in by_name.items()},
                "converting",
                lambda name, _: made.add(by_name[name]),
            )
        except FailedCasesError as error:
            if not made.rows:
                raise
            failed = error
        made.describe()
    test = sum(by_name[row.case].part == "test" for row in made.rows)
    return ConvertedDataset(
        training=len(made.rows) - test,
        test=test,
        splits=made.has_splits,
        notes=(*notes, *made.notes()),
        failed=failed,
    )


class _MadeDataset:
    """A raw dataset in the making.

    Args:
        folder: Its folder.
        release: The release that it is made of.
    """

    def __init__(self, folder: Path, release: DatasetRelease) -> None:
        self._folder, self._release = folder, release
        self._from, self._to = find_scheme(release.scheme), find_scheme(TARGET)
        self._parts: dict[str, str] = {}
        self._changed: dict[str, list[str]] = {}
        self.rows: list[WrittenCase] = []

    def add(self, case: ReleasedCase) -> Path:
        """Write the files of a case, and return its label map.

        Raises:
            DatasetError: If the label map has other labels than those of the release's scheme.
            ImageError: If it cannot be read.
        """
        volume = _label_map(case, self._from)
        plan = plan_conversion(integers_in(volume.array[0]), self._from, self._to)
        part, ending = "Ts" if case.part == "test" else "Tr", self._release.ending
        labels = self._folder / f"labels{part}" / f"{case.name}{ending}"
        kept = not plan.lost and all(old == new for old, new in plan.integers.items())
        if kept and set(case.labels) == {""}:
            link(case.labels[""], labels)
        else:
            labels.parent.mkdir(exist_ok=True)
            write_labels(labels, convert_labels(volume.array[0], plan.integers), volume.stored)
        image = self._folder / f"images{part}" / f"{case.name}_0000{ending}"
        link(case.image, image)
        if case.points is not None:
            link(case.points, self._folder / f"{CENTROIDS}{part}" / f"{case.name}_centroids.json")
        doubts = doubts_of_scheme(volume.array[0], volume.grid, self._from)
        others = f", such as {', '.join(doubts.fitting)}" if doubts.fitting else ""
        doubt = f"labels may be of another scheme than {self._from.name}{others}"
        odd = [doubt] if doubts.reasons else []
        for change in (*plan.merged, *(f"{what} is lost" for what in plan.lost.values()), *odd):
            self._changed.setdefault(change, []).append(case.name)
        self._parts[case.name] = case.part
        self.rows.append(
            WrittenCase(
                case=case.name,
                modality=case.modality,
                site=case.site,
                subject=case.subject,
                integers=frozenset(plan.integers.values()),
            )
        )
        return labels

    @property
    def has_splits(self) -> bool:
        """Whether some cases are for validation and others for training."""
        return {"training", "validation"} <= set(self._parts.values())

    def describe(self) -> None:
        """Write `dataset.json`, `cases.csv` and, where cases are for validation, `splits_final.json`."""
        present = {integer for row in self.rows for integer in row.integers}
        known = ((name, self._to.integers[name]) for name in self._to.ordered)
        labels = {name: integer for name, integer in known if integer in present}
        write_description(
            self._folder,
            self.rows,
            training=sum(part != "test" for part in self._parts.values()),
            labels={"background": 0, **labels},
            others={"file_ending": self._release.ending, "reference": self._release.title},
        )
        if self.has_splits:
            fold = {"train": self._names("training"), "val": self._names("validation")}
            write_json(self._folder / SPLITS, [fold])

    def notes(self) -> tuple[str, ...]:
        """Return what was merged, lost and doubted, with the number of cases."""
        return tuple(
            f"{change}, in {len(names)} of {len(self.rows)} cases" for change, names in self._changed.items()
        )

    def _names(self, part: str) -> list[str]:
        return sorted(name for name, own in self._parts.items() if own == part)


def _label_map(case: ReleasedCase, scheme: LabelScheme) -> Volume:
    """Read the label map of a case, or join its masks in the order of the scheme.

    Raises:
        DatasetError: If two masks lie on different grids.
    """
    if "" in case.labels:
        return read_labels(case.labels[""])
    order = scheme.ordered.index
    (structure, file), *others = sorted(case.labels.items(), key=lambda labelled: order(labelled[0]))
    first = read_labels(file)
    joined: LabelArray = np.zeros(first.array[0].shape, dtype=np.uint8)
    joined[first.array[0] > 0] = scheme.integers[structure]
    for structure, file in others:
        mask = read_labels(file)
        if apart := difference(first.grid, mask.grid):
            raise DatasetError(
                f"expected the masks of {case.name} on one grid, found {apart}; copy them again"
            )
        joined[mask.array[0] > 0] = scheme.integers[structure]
    return Volume(array=joined[None], grid=first.grid, stored=first.stored)


def link(source: Path, target: Path) -> None:
    """Link a file, or a folder of slices, or copy it where the file system has no links.

    The folder of the target is made.
    """
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
