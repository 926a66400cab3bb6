"""The files of a measured case: everything as JSON, and two tables for spreadsheets."""

from dataclasses import fields, replace
from pathlib import Path

from autospine.core.errors import FormatError
from autospine.measurements.spine_measurements import (
    FORMAT_VERSION,
    DiscMeasurements,
    SpineMeasurements,
    VertebraMeasurements,
)
from autospine.storage.serialization import read_json, write_json
from autospine.storage.spreadsheet import write_table

JSON_ENDING = "_measurements.json"
VERTEBRAE_ENDING = "_measurements.csv"
SPINE_ENDING = "_spine.csv"

_VERTEBRA_COLUMNS = [
    each.name for each in fields(VertebraMeasurements) if each.name not in ("centre_mm", "notes")
]
_DISC_COLUMNS = [
    each.name for each in fields(DiscMeasurements) if each.name not in ("upper", "lower", "notes")
]

VERTEBRA_TABLE = (
    *("case", "level", "x_mm", "y_mm", "z_mm", *_VERTEBRA_COLUMNS[1:]),
    *(f"disc_below_{name}" for name in _DISC_COLUMNS),
    "notes",
)
"""Columns of the table of vertebrae; those of the disc below follow those of the vertebra."""

SPINE_TABLE = ("case", "measurement", "value", "unit", "plane", "upper", "lower", "note")
"""Columns of the table of angles and of the alignment."""


def write_measurements(folder: Path, measured: SpineMeasurements) -> Path:
    """Write the JSON and both tables of a case into a folder, and return the file of the JSON."""
    case, path = measured.case, folder / f"{measured.case}{JSON_ENDING}"
    write_json(path, measured)
    write_table(folder / f"{case}{VERTEBRAE_ENDING}", VERTEBRA_TABLE, vertebra_rows(measured))
    write_table(folder / f"{case}{SPINE_ENDING}", SPINE_TABLE, _spine_rows(measured))
    return path


def read_measurements(path: Path) -> SpineMeasurements:
    """Read the JSON of a case; one of version 1 gets its vertebral rings in their own fields.

    Raises:
        FormatError: If the file is damaged or of another version.
    """
    measured = read_json(path, SpineMeasurements)
    if measured.format_version == 1:
        vertebrae = tuple(_with_own_ring(each) for each in measured.vertebrae)
        return replace(measured, format_version=FORMAT_VERSION, vertebrae=vertebrae)
    if measured.format_version != FORMAT_VERSION:
        raise FormatError(
            f"expected format_version {FORMAT_VERSION} or 1 in {path}, found {measured.format_version}; run "
            "`autospine anatomy measure` again"
        )
    return measured


def _with_own_ring(vertebra: VertebraMeasurements) -> VertebraMeasurements:
    """Return a vertebra of version 1, whose ring was written where the canal is."""
    if vertebra.canal_source != "vertebral ring":
        return vertebra
    return replace(
        vertebra,
        ring_area_mm2=vertebra.canal_area_mm2,
        ring_depth_mm=vertebra.canal_depth_mm,
        ring_width_mm=vertebra.canal_width_mm,
        canal_area_mm2=None,
        canal_depth_mm=None,
        canal_width_mm=None,
    )


def vertebra_rows(measured: SpineMeasurements) -> list[tuple[object, ...]]:
    """Return the rows of the table of vertebrae; what was not measured is an empty cell."""
    below = {disc.upper: disc for disc in measured.discs}
    rows = []
    for vertebra in measured.vertebrae:
        disc = below.get(vertebra.level)
        notes = (*vertebra.notes, *(f"disc below: {note}" for note in (disc.notes if disc else ())))
        rows.append(
            (
                measured.case,
                vertebra.level,
                *vertebra.centre_mm,
                *(getattr(vertebra, name) for name in _VERTEBRA_COLUMNS[1:]),
                *(None if disc is None else getattr(disc, name) for name in _DISC_COLUMNS),
                "; ".join(notes),
            )
        )
    return rows


def _spine_rows(measured: SpineMeasurements) -> list[tuple[object, ...]]:
    case, alignment = measured.case, measured.alignment
    rows: list[tuple[object, ...]] = [
        (case, angle.name, angle.degrees, "degrees", angle.plane, angle.upper, angle.lower, angle.note)
        for angle in measured.angles
    ]
    rows += [
        (
            case,
            "sagittal vertical axis",
            alignment.sagittal_vertical_axis_mm,
            "mm",
            "sagittal",
            "C7",
            "sacrum",
            "",
        ),
        (case, "coronal balance", alignment.coronal_balance_mm, "mm", "coronal", "C7", "sacrum", ""),
        (
            *(case, "largest deviation", alignment.largest_deviation_mm, "mm", "coronal"),
            *(alignment.largest_deviation_at, None, ""),
        ),
    ]
    return rows
