"""`statistics.json` and `statistics.csv`: numbers about the anatomy in the label maps of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from autospine.core.errors import FormatError, WorkspaceError
from autospine.evaluation.label_statistics import LabelStatistics
from autospine.storage.locks import waiting_lock
from autospine.storage.part_folders import part_folders
from autospine.storage.serialization import read_json, stored_as, write_json
from autospine.storage.spreadsheet import write_table

STATISTICS = "statistics.json"
STATISTICS_TABLE = "statistics.csv"
LOCK = ".statistics.lock"
FORMAT_VERSION = 2
"""Version 1 did not name the coordinates of the centroids, which were the same."""

COORDINATES: Final = "LPS"
"""Physical space of the centroids: x grows to the left, y to the back, z to the head, as in ITK and DICOM."""

STATISTICS_COLUMNS = (
    *("case", "label", "integer", "voxels", "ml", "x_mm", "y_mm", "z_mm"),
    *("mean_intensity", "components", "touches_border", "coordinates"),
)
"""Columns of the table; the position is that of the centroid, in the physical space of `coordinates`."""

CaseStatistics = tuple[LabelStatistics, ...]
"""Every class of the label map of a case, in the order of the label space."""


@stored_as("statistics of label maps", largest=2**29)
@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsFile:
    """The content of `statistics.json`."""

    format_version: int
    cases: dict[str, CaseStatistics]
    """Statistics of each case by its name."""

    coordinates: Literal["LPS"] = COORDINATES
    """Physical space of the centroids, in mm."""


def read_statistics(folder: Path) -> dict[str, CaseStatistics]:
    """Return the statistics in a folder by case, with those of parts that are not joined yet.

    Raises:
        FormatError: If a file is damaged, of another version or something else.
    """
    cases = _read(folder)
    for part in part_folders(folder):
        cases |= _read(part)
    return cases


def add_statistics(folder: Path, cases: Mapping[str, CaseStatistics]) -> None:
    """Add cases to the statistics in a folder, ordered by name, and write the table of all of them.

    Several processes may write to the same folder: cases that another one has added meanwhile stay. So do
    the mean intensities of a label map that was measured again without its image.

    Raises:
        WorkspaceError: If the folder cannot be written to.
        FormatError: If the file there is damaged, of another version or something else.
    """
    if not cases:
        return
    try:
        with waiting_lock(folder / LOCK, f"writes {folder / STATISTICS}"):
            known = _read(folder)
            known |= {case: _with_intensities(found, known.get(case, ())) for case, found in cases.items()}
            ordered = {name: known[name] for name in sorted(known)}
            write_json(folder / STATISTICS, StatisticsFile(format_version=FORMAT_VERSION, cases=ordered))
            rows = [_row(case, each) for case, entries in ordered.items() for each in entries]
            write_table(folder / STATISTICS_TABLE, STATISTICS_COLUMNS, rows)
    except OSError as error:
        raise WorkspaceError(
            f"expected to write {folder / STATISTICS}, found {error}; free some space and do it again"
        ) from None


def _read(folder: Path) -> dict[str, CaseStatistics]:
    """Return the cases of `statistics.json` in a folder; none if there is no such file."""
    path = folder / STATISTICS
    if not path.exists():
        return {}
    content = read_json(path, StatisticsFile)
    if content.format_version not in range(1, FORMAT_VERSION + 1):
        raise FormatError(
            f"expected format_version 1 to {FORMAT_VERSION} in {path}, found {content.format_version}; "
            "name another output folder, or use the AutoSpine version that made it"
        )
    return content.cases


def _with_intensities(found: CaseStatistics, earlier: CaseStatistics) -> CaseStatistics:
    """Return the statistics of a case with the intensities that are known of the same label map."""
    same = [replace(each, mean_intensity=None) for each in earlier] == list(found)
    return earlier if same else found


def _row(case: str, entry: LabelStatistics) -> tuple[object, ...]:
    position = entry.centroid_mm or (None, None, None)
    return (
        *(case, entry.label, entry.integer, entry.voxels, entry.ml, *position),
        *(entry.mean_intensity, entry.components, str(entry.touches_border).lower(), COORDINATES),
    )
