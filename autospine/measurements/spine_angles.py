"""Angles between endplates, and the alignment of the whole spine."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autospine.core.types import Position
from autospine.measurements.disc_space import Endplate
from autospine.measurements.spine_measurements import Alignment, AnglePlane, SpineAngle
from autospine.vertebrae.levels import SACRUM

LEAST_FOR_COBB = 3
"""Vertebrae from the upper to the lower end of a curve: both ends, and an apex between them."""

SCOLIOSIS_DEG = 10.0
"""Coronal Cobb angle from which a curve counts as scoliosis (Scoliosis Research Society)."""

LEAST_SIDE_DEG = 5.0
"""Coronal Cobb angle from which the side of a curve is named: both endplates may be off by two degrees."""

LEAST_FOR_LINE = 3
"""Vertebrae that it takes to tell how far one lies off the line of the first and the last."""

LAST_OF_CHEST, LAST_OF_LOIN = "last thoracic vertebra", "last lumbar vertebra"

SPANS: tuple[tuple[str, tuple[str, bool], tuple[str, bool], int], ...] = (
    ("cervical lordosis", ("C2", False), ("C7", False), 1),
    ("thoracic kyphosis", ("T4", True), (LAST_OF_CHEST, False), -1),
    ("thoracolumbar kyphosis", ("T10", True), ("L2", False), -1),
    ("lumbar lordosis", ("L1", True), (SACRUM, True), 1),
    ("lumbar lordosis to the last vertebra", ("L1", True), (LAST_OF_LOIN, False), 1),
)
"""Name of each angle, its upper and its lower endplate, and the sign of an angle that is open in front;
endplates are upper ones where True."""


class PlacedEndplate(NamedTuple):
    """An endplate and whose it is."""

    level: str
    cranial: bool
    """Whether it is the upper one."""

    middle_mm: Position
    normal: Position
    """Unit vector to the head."""

    @property
    def name(self) -> str:
        """Such as `T4 upper`."""
        return f"{self.level} {'upper' if self.cranial else 'lower'}"


def tilt_degrees(normal: Position, plane: AnglePlane) -> float:
    """Return the angle of a normal to the patient's axis in a plane.

    Returns:
        Positive if it leans to the left (coronal) or forwards (sagittal), -180 to 180.
    """
    across = normal[0] if plane == "coronal" else -normal[1]
    return float(np.degrees(np.arctan2(across, normal[2])))


def angle_between(above: Position, below: Position, plane: AnglePlane) -> float:
    """Return by how much the lower one of two normals leans further than the upper one, in a plane.

    Returns:
        Degrees, -180 (left out) to 180; in the sagittal plane positive where the space between both endplates
        is open in front.
    """
    further = tilt_degrees(below, plane) - tilt_degrees(above, plane)
    return 180.0 - (180.0 - further) % 360.0


def angles_of(placed: Sequence[PlacedEndplate], levels: Sequence[str]) -> tuple[SpineAngle, ...]:
    """Measure every angle whose endplates were found.

    Args:
        placed: Endplates from the head down.
        levels: Every level that is labelled, whether measured or not, from the head down.
    """
    cobb = _largest_cobb(placed, levels)
    by_name = {(each.level, each.cranial): each for each in placed}
    last = {
        LAST_OF_CHEST: _last_thoracic(levels),
        LAST_OF_LOIN: _last_lumbar(levels, (SACRUM, True) in by_name),
    }
    found = [] if cobb is None else [cobb]
    for name, start, (level, cranial), sign in SPANS:
        upper, lower = by_name.get(start), by_name.get((last.get(level, level), cranial))
        if upper is not None and lower is not None:
            found.append(
                SpineAngle(
                    name=name,
                    degrees=round(sign * angle_between(upper.normal, lower.normal, "sagittal"), 1),
                    plane="sagittal",
                    upper=upper.name,
                    lower=lower.name,
                )
            )
    if (SACRUM, True) in by_name:
        sacral = by_name[SACRUM, True]
        found.append(
            SpineAngle(
                name="sacral slope",
                degrees=round(tilt_degrees(sacral.normal, "sagittal"), 1),
                plane="sagittal",
                upper=sacral.name,
                lower="horizontal",
                note="against the patient's axis in the scanner, lying",
            )
        )
    return tuple(found)


def _last_thoracic(levels: Sequence[str]) -> str:
    """Return the last thoracic vertebra of a spine; none of its levels if the map does not show it."""
    if "T13" in levels:
        return "T13"
    return "T11" if "T12" not in levels and "L1" in levels else "T12"


def _last_lumbar(levels: Sequence[str], on_sacrum: bool) -> str:
    """Return the last lumbar vertebra of a spine; L4 only where the sacrum's endplate lies right below."""
    if "L6" in levels:
        return "L6"
    return "L4" if "L5" not in levels and on_sacrum else "L5"


def _largest_cobb(placed: Sequence[PlacedEndplate], levels: Sequence[str]) -> SpineAngle | None:
    """Return the largest angle in the coronal plane of an upper and a lower endplate below it.

    The curve takes at least `LEAST_FOR_COBB` vertebrae with both ends.
    """
    order = {level: place for place, level in enumerate(levels)}
    mobile = [each for each in placed if each.level in order]
    pairs = [
        (upper, lower)
        for upper in mobile
        for lower in mobile
        if upper.cranial and not lower.cranial
        if order[lower.level] - order[upper.level] + 1 >= LEAST_FOR_COBB
    ]
    if not pairs:
        return None
    bent = [angle_between(upper.normal, lower.normal, "coronal") for upper, lower in pairs]
    at = int(np.argmax(np.abs(bent)))
    upper, lower = pairs[at]
    notes = []
    if abs(bent[at]) >= LEAST_SIDE_DEG:
        # Where the upper endplate leans to the right and the lower one to the left, the curve bulges to the
        # left.
        notes.append(f"convex to the {'left' if bent[at] > 0 else 'right'}")
    if abs(bent[at]) < SCOLIOSIS_DEG:
        notes.append(f"no scoliosis, which begins at {SCOLIOSIS_DEG:.0f} degrees")
    return SpineAngle(
        name="coronal Cobb angle",
        degrees=round(abs(bent[at]), 1),
        plane="coronal",
        upper=upper.name,
        lower=lower.name,
        note="; ".join(notes),
    )


def alignment_of(centres_mm: Mapping[str, Position], sacrum: Endplate | None) -> Alignment:
    """Measure the balance of the spine.

    Args:
        centres_mm: Centre of each body from the head down.
        sacrum: Upper endplate of the sacrum.
    """
    vertical = balance = deviation = None
    at = None
    if sacrum is not None and "C7" in centres_mm:
        vertical = round(float(sacrum.back_corner_mm[1] - centres_mm["C7"][1]), 1)
        balance = round(float(centres_mm["C7"][0] - sacrum.middle_mm[0]), 1)
    if len(centres_mm) >= LEAST_FOR_LINE:
        points = np.array(list(centres_mm.values()))[:, [0, 2]]
        line = points[-1] - points[0]
        length = float(np.linalg.norm(line))
        if length > 0:
            x, z = (points - points[0]).T
            off = np.abs(line[0] * z - line[1] * x) / length
            deviation, at = round(float(off.max()), 1), list(centres_mm)[int(off.argmax())]
    return Alignment(
        sagittal_vertical_axis_mm=vertical,
        coronal_balance_mm=balance,
        largest_deviation_mm=deviation,
        largest_deviation_at=at,
    )
