"""Angles between endplates, and the alignment of the whole spine."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autospine.core.types import Position
from autospine.measurements.disc_space import Endplate
from autospine.measurements.spine_measurements import Alignment, AnglePlane, SpineAngle
from autospine.vertebrae.levels import SACRUM

LEAST_FOR_COBB = 3
"""Vertebrae that a scoliotic curve takes."""

SPANS: tuple[tuple[str, tuple[str, bool], tuple[tuple[str, bool], ...], int], ...] = (
    ("cervical lordosis", ("C2", False), (("C7", False),), 1),
    ("thoracic kyphosis", ("T4", True), (("T12", False), ("T13", False)), -1),
    ("thoracolumbar kyphosis", ("T10", True), (("L2", False),), -1),
    ("lumbar lordosis", ("L1", True), ((SACRUM, True),), 1),
    ("lumbar lordosis to the last vertebra", ("L1", True), (("L6", False), ("L5", False)), 1),
)
"""Name of each angle, its upper endplate, the lower ones of which the first that is there counts, and the
sign of an angle that is open in front; endplates are upper ones where True."""


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


def angles_of(placed: Sequence[PlacedEndplate]) -> tuple[SpineAngle, ...]:
    """Measure every angle whose endplates were found.

    Args:
        placed: Endplates from the head down.
    """
    cobb = _largest_cobb(placed)
    by_name = {(each.level, each.cranial): each for each in placed}
    found = [] if cobb is None else [cobb]
    for name, start, ends, sign in SPANS:
        end = next((end for end in ends if end in by_name), None)
        if start in by_name and end is not None:
            upper, lower = by_name[start], by_name[end]
            bent = tilt_degrees(lower.normal, "sagittal") - tilt_degrees(upper.normal, "sagittal")
            found.append(
                SpineAngle(
                    name=name,
                    degrees=round(sign * bent, 1),
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


def _largest_cobb(placed: Sequence[PlacedEndplate]) -> SpineAngle | None:
    """Return the largest angle in the coronal plane of an upper and a lower endplate below it."""
    levels = list(dict.fromkeys(each.level for each in placed if each.level != SACRUM))
    if len(levels) < LEAST_FOR_COBB:
        return None
    tilts = [tilt_degrees(each.normal, "coronal") for each in placed]
    best, pair = -1.0, None
    for i, upper in enumerate(placed):
        for j in range(i + 1, len(placed)):
            lower = placed[j]
            if (
                upper.cranial
                and not lower.cranial
                and upper.level != lower.level
                and abs(tilts[i] - tilts[j]) > best
            ):
                best, pair = abs(tilts[i] - tilts[j]), (i, j)
    if pair is None:
        return None
    i, j = pair
    # Where the upper endplate leans to the right and the lower one to the left, the curve bulges to the left.
    side = "left" if tilts[i] < tilts[j] else "right"
    return SpineAngle(
        name="coronal Cobb angle",
        degrees=round(best, 1),
        plane="coronal",
        upper=placed[i].name,
        lower=placed[j].name,
        note=f"convex to the {side}",
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
    if len(centres_mm) >= LEAST_FOR_COBB:
        points = np.array(list(centres_mm.values()))
        share = (points[:, 2] - points[0, 2]) / (points[-1, 2] - points[0, 2])
        off = np.abs(points[:, 0] - points[0, 0] - share * (points[-1, 0] - points[0, 0]))
        deviation, at = round(float(off.max()), 1), list(centres_mm)[int(off.argmax())]
    return Alignment(
        sagittal_vertical_axis_mm=vertical,
        coronal_balance_mm=balance,
        largest_deviation_mm=deviation,
        largest_deviation_at=at,
    )
