"""Names that predictions give to the voxels of each class, and the file `confusion.csv`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autospine.core.labels import BACKGROUND
from autospine.evaluation.overlap import Confusion
from autospine.storage.spreadsheet import write_table

CONFUSION_CSV = "confusion.csv"

CONFUSION_COLUMNS = ("class", "voxels", "found", "called", "called_voxels", "share", "share_of_found")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassNaming:
    """Names that the predictions give to the voxels that a class has in the references."""

    name: str
    """Name of the class."""

    called: Mapping[str, int]
    """Number of its voxels by the class in the prediction, or `background`; classes without any are left out.
    """

    @property
    def voxels(self) -> int:
        """Number of its voxels in the references, at least one."""
        return sum(self.called.values())

    @property
    def found(self) -> float:
        """Share of its voxels that are not called background, 0 to 1, whatever their name."""
        return 1 - self.called.get(BACKGROUND, 0) / self.voxels

    @property
    def shares(self) -> dict[str, float]:
        """Share of its voxels by what they are called, `background` included."""
        return {other: count / self.voxels for other, count in self.called.items()}

    @property
    def shares_of_found(self) -> dict[str, float]:
        """Share of those of its voxels that were found by what they are called; empty if none was."""
        found = {other: count for other, count in self.called.items() if other != BACKGROUND}
        return {other: count / sum(found.values()) for other, count in found.items()}


def namings_of(classes: Sequence[str], tables: Sequence[Confusion]) -> tuple[ClassNaming, ...]:
    """Add up tables of confusions, and return those classes that are in any reference.

    Args:
        classes: Foreground classes, in the order of the tables.
        tables: Numbers of voxels by class in the reference (rows) and in the prediction (columns), the
            background first.
    """
    if not tables:
        return ()
    total, names = np.sum(tables, axis=0), (BACKGROUND, *classes)
    return tuple(
        ClassNaming(name=name, called={names[i]: int(row[i]) for i in np.flatnonzero(row).tolist()})
        for name, row in zip(classes, total[1:], strict=True)
        if row.any()
    )


def write_confusion(namings: Sequence[ClassNaming], folder: Path) -> None:
    """Write `confusion.csv`, one row for each pair of a class and what some of its voxels are called.

    The file has no rows where nothing was counted, as for overlapping regions. `share_of_found` is empty in
    rows of the background.
    """
    rows = [
        (
            *(each.name, each.voxels, round(each.found, 6), other, each.called[other], round(share, 6)),
            None if other == BACKGROUND else round(each.shares_of_found[other], 6),
        )
        for each in namings
        for other, share in each.shares.items()
    ]
    write_table(folder / CONFUSION_CSV, CONFUSION_COLUMNS, rows)
