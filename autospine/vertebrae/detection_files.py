"""Files of the points that a detector of vertebrae has found."""

from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from autospine.core.errors import FormatError
from autospine.storage.file_names import read_text
from autospine.storage.serialization import parse_json
from autospine.vertebrae.keypoint_detections import DetectedPoint

PointKind = Literal["body", "left", "right"]

ENDING = ".json"

_SHAPE = (
    'a list of {"coordinates": {"world_space": [x, y, z]}, "type": {"keypoint_type": "body", '
    '"spine_segment_probabilities": [cervical, thoracic, lumbar]}}'
)


def is_no_list(path: Path) -> bool:
    """Return whether a file is JSON and no list, such as a record of AutoSpine's beside label maps."""
    try:
        return not isinstance(parse_json(read_text(path)), list)
    except (OSError, ValueError):
        return False


def read_detections(path: Path) -> list[DetectedPoint]:
    """Read bodies with the probabilities of their region, and left and right pedicles, in mm of LPS.

    The layout is that of the VID data set (Bürgin, Prevost and Stollenga, MICCAI 2023). Levels that a file
    may state are not read.

    Raises:
        FormatError: If the file is no such list.
    """
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise FormatError(f"expected {_SHAPE} in {path}, found {error}") from None
    if not isinstance(found, list):
        raise FormatError(f"expected {_SHAPE} in {path}, found {type(found).__name__}")
    points = [_point(entry) for entry in found]
    wrong = [place for place, point in enumerate(points) if point is None]
    if wrong:
        raise FormatError(
            f"expected {_SHAPE} in {path}, found {len(wrong)} of {len(found)} entries, the first at place "
            f"{wrong[0]}, that are not so"
        )
    return [point for point in points if point is not None]


def _point(entry: Any) -> DetectedPoint | None:
    """Return the point of an entry; None if it is none."""
    try:
        kind = entry["type"]["keypoint_type"]
        position = tuple(float(value) for value in entry["coordinates"]["world_space"])
        regions = tuple(float(p) for p in entry["type"].get("spine_segment_probabilities", (0.0, 0.0, 0.0)))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    sound = kind in get_args(PointKind) and len(position) == 3 == len(regions)
    if not sound or not all(map(isfinite, position)) or not all(0 <= p <= 1 for p in regions):
        return None
    return DetectedPoint(
        kind=kind,
        position_mm=(position[0], position[1], position[2]),
        regions=(regions[0], regions[1], regions[2]),
    )
