"""Vertebrae from the points that a detector found: bodies, and left and right pedicles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.optimize import linear_sum_assignment

from autospine.core.types import Vector3
from autospine.vertebrae.decoding import FoundVertebrae
from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM
from autospine.vertebrae.proportions import PEDICLES_MM, by_variant
from autospine.vertebrae.spine_curve import order_from_head

REGIONS = "CTL"
"""First letters of the levels whose regions detectors tell apart."""

PEDICLE_FROM_BODY_MM = (13.0, 20.0, 0.0)
"""Mean offset of the left pedicle from its body, in LPS; that of the right one is the mirror image."""

ACROSS = np.array((0.5, 1.0, 1.0))
"""Weight of a difference from left to right: pedicles of L5 lie twice as far apart as those of T6."""

FARTHEST_PEDICLE_MM = 18.0
"""Distance from there beyond which a pedicle is another vertebra's."""

DOUBTS = (0.008, 0.001, 0.0005)
"""Probability that a detector is sure of the wrong region, at the border with it, next to that, and further
away."""

TORN_DOUBTS = (0.035, 0.006, 0.001)
"""Probability that it leans to the wrong region where it is torn."""

TORN = math.exp(-7.0)
"""Odds of the second region, in parts of those of the first, from which a detector is torn between them."""

TORN_SHARES = (0.25, 0.08, 0.02)
"""Share of the vertebrae of which it is, at the border of these regions, next to it, and further away."""

LEANING = 0.6
"""Exponent of the odds of regions between which a detector is torn, which say less than they seem to."""

SEEN, SURE = -2.3, 1.8
"""Evidence of a body, and what the logit of its surest region adds to it: most false hits are unsure, and few
true ones."""

SACRAL = 1.0
"""Evidence of a hit on the sacrum, which detectors of vertebrae are not sure of."""

PEDICLES = (-2.5, -1.5, 0.6)
"""Evidence that none, one and both of its pedicles add to a body."""

NEAREST_MM = 14.0
"""Least distance of a vertebra that has pedicles alone from the body of another one."""

PEDICLES_ALONE = 0.0
"""Evidence of two pedicles without a body."""

UPSIDE_DOWN = 0.7
"""Correlation of height and region, from the neck down, from which head and feet are exchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectedPoint:
    """A point that a detector found."""

    kind: Literal["body", "left", "right"]
    """The centre of a body, or of a pedicle of that side."""

    position_mm: Vector3
    """Position in LPS."""

    regions: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Probability, by the detector, that a body is cervical, thoracic or lumbar; not adding up to 1."""


def found_vertebrae(points: Sequence[DetectedPoint]) -> FoundVertebrae | None:
    """Join the points of each vertebra; None if there is none.

    Two pedicles that belong to no body stand for a vertebra whose body the detector has missed.

    Args:
        points: Points in any order.
    """
    bodies = [point for point in points if point.kind == "body"]
    centres = np.array([body.position_mm for body in bodies]).reshape(-1, 3)
    left, left_over = _pedicles(points, centres, "left")
    right, right_over = _pedicles(points, centres, "right")
    n_pedicles = (~np.isnan(left[:, 0])).astype(int) + ~np.isnan(right[:, 0])
    evidence = np.array([_evidence(np.array(body.regions)) for body in bodies]).reshape(-1, len(LEVELS))
    evidence[:, : INDEX[SACRUM]] += np.array(PEDICLES)[n_pedicles][:, None]
    pairs = _pairs(left_over, right_over)
    between = pairs.mean(axis=1) - (0.0, *PEDICLE_FROM_BODY_MM[1:])
    apart = np.linalg.norm(between[:, None] - centres[None], axis=2).min(axis=1, initial=np.inf)
    pairs, between = pairs[apart > NEAREST_MM], between[apart > NEAREST_MM]
    centres = np.concatenate((centres, between))
    if not len(centres):
        return None
    order = order_from_head(centres)
    extents = np.linalg.norm(
        np.concatenate((left, pairs[:, 0])) - np.concatenate((right, pairs[:, 1])), axis=1
    )
    alone = np.full((len(pairs), len(LEVELS)), PEDICLES_ALONE)
    alone[:, INDEX[SACRUM]] = 0.0
    return FoundVertebrae(
        positions_mm=centres[order],
        evidence=np.concatenate((evidence, alone))[order][:, None],
        extents_mm=extents[order],
        expected_mm=by_variant(PEDICLES_MM),
    )


def stand_upside_down(points: Sequence[DetectedPoint]) -> bool:
    """Return whether the regions of the bodies run from the feet to the head."""
    bodies = [point for point in points if point.kind == "body" and max(point.regions) > min(point.regions)]
    regions = [int(np.argmax(body.regions)) for body in bodies]
    heights = [body.position_mm[2] for body in bodies]
    if len(set(regions)) < 2 or len(set(heights)) < 2:
        return False
    return bool(np.corrcoef(heights, regions)[0, 1] > UPSIDE_DOWN)


def turned_over(points: Sequence[DetectedPoint]) -> list[DetectedPoint]:
    """Return points with head and feet exchanged."""
    return [replace(point, position_mm=(*point.position_mm[:2], -point.position_mm[2])) for point in points]


def _evidence(regions: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, " levels"]:
    """Return the evidence of a body for each level.

    Detectors take the last vertebra of a region for one of the next, or are torn between the two; far from
    the border they hardly ever are.
    """
    sure = np.clip(regions, 1e-3, 1 - 1e-3)
    odds = sure / (1 - sure)
    there = SEEN + SURE * float(np.log(odds.max()))
    best, second = (REGIONS[i] for i in np.argsort(-odds)[:2])
    torn = float(np.sort(odds)[-2] / odds.max()) > TORN
    leaning = odds**LEANING if torn else odds
    shares = leaning / leaning.sum()
    evidence = np.full(len(LEVELS), np.nan)
    for level, index in INDEX.items():
        region = "L" if level == SACRUM else level[0]
        away = min(_from_border(level, REGIONS.replace(region, "")), len(DOUBTS) - 1)
        doubt = (TORN_DOUBTS if torn else DOUBTS)[away]
        share = (1 - doubt) * shares[REGIONS.index(region)] + doubt
        near = min(_from_border(level, best + second), len(TORN_SHARES) - 1)
        chance = TORN_SHARES[near] / TORN_SHARES[-1] if torn else 1 - TORN_SHARES[near]
        evidence[index] = there + np.log(share) + np.log(chance)
    evidence[INDEX[SACRUM]] += SACRAL - there
    return evidence


def _from_border(level: str, regions: str) -> int:
    """Return the number of levels between one and the border of its region with the nearest of others."""
    if level == SACRUM:
        return len(DOUBTS)
    place = LEVELS.index(level)
    others = [INDEX[other] for other in LEVELS if other[0] in regions and other[0] != level[0]]
    return min((abs(place - other) for other in others), default=len(LEVELS)) - 1


def _pedicles(
    points: Sequence[DetectedPoint], bodies: Float64[np.ndarray, "n 3"], side: str
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "m 3"]]:
    """Return the pedicle of each body on one side, NaN where there is none, and those that are left."""
    found = np.full_like(bodies, np.nan)
    pedicles = np.array([point.position_mm for point in points if point.kind == side]).reshape(-1, 3)
    offset = np.array(PEDICLE_FROM_BODY_MM) * (1 if side == "left" else -1, 1, 1)
    distance = np.linalg.norm((bodies[:, None] + offset - pedicles[None]) * ACROSS, axis=2)
    rows, columns = linear_sum_assignment(np.minimum(distance, FARTHEST_PEDICLE_MM))
    near = distance[rows, columns] < FARTHEST_PEDICLE_MM
    found[rows[near]] = pedicles[columns[near]]
    return found, np.delete(pedicles, columns[near], axis=0)


def _pairs(
    left: Float64[np.ndarray, "n 3"], right: Float64[np.ndarray, "m 3"]
) -> Float64[np.ndarray, "k 2 3"]:
    """Return the pedicles that lie beside each other as those of one vertebra do."""
    across = 2 * PEDICLE_FROM_BODY_MM[0]
    apart = np.linalg.norm(right[None] + (across, 0.0, 0.0) - left[:, None], axis=2)
    rows, columns = linear_sum_assignment(np.minimum(apart, FARTHEST_PEDICLE_MM))
    near = apart[rows, columns] < FARTHEST_PEDICLE_MM
    return np.stack((left[rows[near]], right[columns[near]]), axis=1)
