"""Fractures of vertebral bodies by Genant's method, from the heights of all bodies in view."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from autospine.measurements.body_lengths import BodyHeights

GENANT_LEVELS = (*(f"T{i}" for i in range(4, 14)), *(f"L{i}" for i in range(1, 5)))
"""Levels that Genant's method grades, from the head down."""

GENANT_LOSS = (0.20, 0.25, 0.40)
"""Loss of height from which a fracture has grade 1, 2 and 3 (Genant et al., JBMR 8, 1993)."""

FARTHEST = 2
"""Levels up to which a sound vertebra counts as a neighbour."""

GROWTH = 1.04
"""Height of a body over that of the one above, from T4 to L2, measured on public masks (CC BY 4.0); from
there on heights stay the same."""

LAST_GROWN = "L2"


class FractureGrade(NamedTuple):
    """A body's grade by Genant's method."""

    grade: int | None
    """0 to 3; None where it cannot be judged."""

    shape: str | None
    """Wedge, biconcave or crush, of grades above 0."""

    note: str = ""
    """Reason for which the grade is missing or doubtful."""


def grade_fractures(heights: Mapping[str, BodyHeights], levels: Collection[str]) -> dict[str, FractureGrade]:
    """Return the grade of every body that is graded.

    A loss is that of the front or the middle against the same body's back, or of any of the three heights
    against the nearest sound bodies above and below. A body that has lost height itself is no reference.

    Args:
        heights: Heights of the bodies that were measured, by level.
        levels: Every level that is labelled, whether measured or not.
    """
    order = [level for level in GENANT_LEVELS if level != "T13" or level in levels]
    walls = {level: heights[level].at_walls() for level in order if level in heights}
    sound = {level for level, own in walls.items() if max(_losses(own, None).values()) < GENANT_LOSS[0]}
    while True:
        references = {level: _reference(level, order, walls, sound) for level in walls}
        losses = {level: _losses(own, references[level]) for level, own in walls.items()}
        kept = {level for level in sound if max(losses[level].values()) < GENANT_LOSS[0]}
        if kept == sound:
            return {level: _grade(losses[level], references[level] is not None) for level in walls}
        sound = kept


def _losses(own: BodyHeights, reference: BodyHeights | None) -> dict[str, float]:
    """Return the largest loss of height by the shape of the fracture that it makes."""
    back = max(own.posterior_mm, 0.1)
    losses = {"wedge": 1 - own.anterior_mm / back, "biconcave": 1 - own.middle_mm / back, "crush": 0.0}
    if reference is None:
        return losses
    front, middle, whole = (1 - own_mm / mm for own_mm, mm in zip(own, reference, strict=True))
    return {
        "wedge": max(losses["wedge"], front),
        "biconcave": max(losses["biconcave"], middle),
        "crush": whole,
    }


def _reference(
    level: str, order: list[str], walls: Mapping[str, BodyHeights], sound: Collection[str]
) -> BodyHeights | None:
    """Return the heights that a body would have by its nearest sound neighbours; None without any."""
    place, last = order.index(level), order.index(LAST_GROWN)
    above = order[max(0, place - FARTHEST) : place][::-1]
    below = order[place + 1 : place + 1 + FARTHEST]
    nearest = [next((other for other in side if other in sound), None) for side in (above, below)]
    expected = [
        np.array(walls[other]) * GROWTH ** (min(place, last) - min(order.index(other), last))
        for other in nearest
        if other is not None
    ]
    return BodyHeights(*np.mean(expected, axis=0).tolist()) if expected else None


def _grade(losses: Mapping[str, float], compared: bool) -> FractureGrade:
    grade = sum(max(losses.values()) >= limit for limit in GENANT_LOSS)
    if not grade and not compared:
        return FractureGrade(
            None, None, "no Genant grade: no sound vertebra within two levels to compare heights with"
        )
    if not grade:
        return FractureGrade(0, None)
    # A body that has lost height in front, in the middle and at the back is crushed.
    crushed = losses["crush"] >= GENANT_LOSS[0]
    shape = "crush" if crushed else max(losses, key=losses.__getitem__)
    note = "" if compared else "the Genant grade is by the body's own heights: no sound vertebra is near"
    return FractureGrade(grade, shape, note)
