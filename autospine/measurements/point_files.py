"""Points of a measured spine in the formats of other tools.

Centres are centroids of bodies (of the whole bone for C1). VerSe and TPTBox count voxels of the file's own
axes, which `direction` names by where they lead to; 3D Slicer takes mm of LPS. The Spinal Cord Toolbox takes
an image with one voxel at the back edge of each disc, in the midline, whose value counts discs from 1, which
lies above C1: 3 is C2/C3, 8 is C7/T1, 20 is T12/L1 and 25 the disc above the sacrum.
"""

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autospine.core.geometry import Grid, orientation
from autospine.core.labels import VERSE
from autospine.core.types import Position
from autospine.io.images import write_labels
from autospine.measurements.measure_spine import MeasuredSpine
from autospine.storage.atomic import write_text
from autospine.vertebrae.schemes import COMMON

CORPUS = 50
"""Number of the vertebral body among TPTBox's places of a vertebra."""

SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
"""Where the axes x, y and z of LPS lead to, forwards and backwards."""


def write_points(kind: str, folder: Path, case: str, spine: MeasuredSpine, stored: Grid, grid: Grid) -> Path:
    """Write the points of a case in one of `POINT_FORMATS`, and return the file.

    Args:
        kind: Name of the format.
        folder: Folder to write into.
        case: Name of the case.
        spine: Its measurements.
        stored: Grid of the label map's file.
        grid: Grid of the same map in canonical axes.
    """
    ending, write = POINT_FORMATS[kind]
    path = folder / f"{case}{ending}"
    write(path, spine, stored, grid)
    return path


def axis_letters(stored: Grid) -> tuple[str, str, str]:
    """Return where the axes i, j and k of a file lead to, such as P, I, R."""
    directions = np.asarray(stored.direction).reshape(3, 3)
    # Each axis takes the patient's axis nearest to it, as the canonical order does.
    canonical = orientation(stored).order
    patient = {2 - stored_axis: 2 - place for place, stored_axis in enumerate(canonical)}
    i, j, k = (LETTERS[patient[axis]][int(directions[patient[axis], axis] < 0)] for axis in range(3))
    return i, j, k


def _centres(spine: MeasuredSpine) -> dict[str, Position]:
    return {found.level: found.centre_mm for found in spine.bodies}


def _voxels(centres: Mapping[str, Position], stored: Grid) -> dict[str, list[float]]:
    """Return positions as voxels i, j, k of the file."""
    return {
        level: [round(float(value), 2) for value in stored.index(centre)[::-1]]
        for level, centre in centres.items()
    }


def _verse(path: Path, spine: MeasuredSpine, stored: Grid, grid: Grid) -> None:
    points: list[dict[str, Any]] = [{"direction": list(axis_letters(stored))}]
    for level, (x, y, z) in _voxels(_centres(spine), stored).items():
        points.append({"label": VERSE[level], "X": x, "Y": y, "Z": z})
    write_text(path, json.dumps(points) + "\n")


def _tptbox(path: Path, spine: MeasuredSpine, stored: Grid, grid: Grid) -> None:
    # nibabel's space, which TPTBox uses, is RAS.
    to_ras = np.array([-1.0, -1.0, 1.0])
    rotation = to_ras[:, None] * np.asarray(stored.direction).reshape(3, 3)
    header = {
        "direction": list(axis_letters(stored)),
        "zoom": list(stored.spacing_mm[::-1]),
        "origin": (to_ras * stored.origin_mm).tolist(),
        "rotation": rotation.tolist(),
        "shape": list(stored.shape[::-1]),
        "format": "POI",
    }
    points = {
        str(VERSE[level]): {str(CORPUS): voxel} for level, voxel in _voxels(_centres(spine), stored).items()
    }
    write_text(path, json.dumps([header, points], indent=2) + "\n")


def _slicer(path: Path, spine: MeasuredSpine, stored: Grid, grid: Grid) -> None:
    points = [
        {"id": str(place), "label": level, "position": np.round(centre, 3).tolist()}
        for place, (level, centre) in enumerate(_centres(spine).items(), start=1)
    ]
    markups = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": points,
    }
    write_text(path, json.dumps({"@schema": SLICER_SCHEMA, "markups": [markups]}, indent=2) + "\n")


def _fcsv(path: Path, spine: MeasuredSpine, stored: Grid, grid: Grid) -> None:
    lines = [
        "# Markups fiducial file version = 4.11",
        "# CoordinateSystem = LPS",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    for place, (level, centre) in enumerate(_centres(spine).items(), start=1):
        x, y, z = (f"{value:.3f}" for value in centre)
        lines.append(f"{place},{x},{y},{z},0,0,0,1,1,1,0,{level},,")
    write_text(path, "\n".join(lines) + "\n")


def disc_points(spine: MeasuredSpine) -> dict[int, Position]:
    """Return the back edge of each disc in the midline by the Spinal Cord Toolbox's number of the disc."""
    found = {}
    for upper, lower in pairwise(spine.bodies):
        neighbours = upper.level in COMMON and COMMON[COMMON.index(upper.level) + 1 :][:1] == (lower.level,)
        if neighbours and upper.body is not None and lower.body is not None and not (upper.cut or lower.cut):
            ends = (
                upper.body.corner(anterior=False, cranial=False),
                lower.body.corner(anterior=False, cranial=True),
            )
            found[COMMON.index(lower.level) + 1] = (ends[0] + ends[1]) / 2
    last = spine.bodies[-1] if spine.bodies else None
    if spine.sacrum is not None and last is not None and last.body is not None and last.level == COMMON[-1]:
        back = last.body.corner(anterior=False, cranial=False)
        found[len(COMMON) + 1] = (back + spine.sacrum.back_corner_mm) / 2
    return found


def _sct(path: Path, spine: MeasuredSpine, stored: Grid, grid: Grid) -> None:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for number, position in disc_points(spine).items():
        s, p, left = np.rint(grid.index(position)).astype(int)
        if all(0 <= at < size for at, size in zip((s, p, left), grid.shape, strict=True)):
            labels[s, p, left] = number
    write_labels(path, labels, stored)


POINT_FORMATS: Mapping[str, tuple[str, Callable[[Path, MeasuredSpine, Grid, Grid], None]]] = {
    "verse": ("_centroids.json", _verse),
    "tptbox": ("_poi.json", _tptbox),
    "slicer": (".mrk.json", _slicer),
    "fcsv": (".fcsv", _fcsv),
    "sct": ("_discs.nii.gz", _sct),
}
"""Ending and writer of each format by its name."""
