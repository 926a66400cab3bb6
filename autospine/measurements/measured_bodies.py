"""The vertebrae of a label map: where each lies, its body, and what the image's border cuts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autospine.core.geometry import Box, Grid
from autospine.core.types import LabelArray, Position
from autospine.measurements.body_frame import VertebralBody, body_centre, crop_around, find_body
from autospine.measurements.body_lengths import BodyHeights, body_heights
from autospine.measurements.measured_labels import SpineLabels
from autospine.vertebrae.levels import INDEX

WITHOUT_BODY = ("C1",)
"""Levels that have no body."""

WITHOUT_HEIGHT = ("C2",)
"""Levels whose body has no upper endplate: the dens of the axis stands there."""

DEEPEST, DEEPEST_BELOW_T9 = 1.15, 0.95
"""Depth in parts of the width beyond which a label runs on into the canal: no body is as deep; those of the
chest are about as deep as wide, and those from T10 on are wider."""

MARGIN_MM = 6.0
"""Margin around a vertebra in which its body is sought."""

LEAST_ML = 0.5
"""Volume of a label below which it is a speck and no vertebra."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredBody:
    """A vertebra with what was found of its body, for pictures and for what lies between bodies."""

    level: str
    integer: int
    box: Box
    centre_mm: Position
    body: VertebralBody | None
    """None where there is none, or none that can be measured."""

    heights: BodyHeights | None
    cut: bool
    """Whether the image's border cuts the body."""

    usable: bool
    """Whether the body was found with its walls and is not cut, so that its endplates count."""


def label_boxes(labels: LabelArray, known: SpineLabels) -> dict[int, Box]:
    """Return the box of each label that a measurement needs and the map has."""
    wanted = (*known.levels.values(), *known.sacrum, *known.canal)
    whole = Box.around(labels)
    if whole is None:
        return {}
    found = ndimage.find_objects(np.ascontiguousarray(labels[whole.slices]), max_label=max(wanted))
    return {
        n: Box.of(found[n - 1]).moved(whole.start) for n in wanted if 0 < n <= len(found) and found[n - 1]
    }


def find_bodies(
    labels: LabelArray, grid: Grid, known: SpineLabels, boxes: Mapping[int, Box]
) -> list[MeasuredBody]:
    """Find every vertebra's body, from the head down."""
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    centres: dict[str, Position] = {}
    for level, integer in known.levels.items():
        if integer not in boxes:
            continue
        inside = labels[boxes[integer].slices] == integer
        if np.count_nonzero(inside) * voxel_ml < LEAST_ML:
            continue
        if level in WITHOUT_BODY:
            centres[level] = grid.physical(np.argwhere(inside).mean(axis=0) + boxes[integer].start)
        else:
            centres[level] = body_centre(inside, boxes[integer], grid)
    directions = _directions(centres)
    return [
        _found_body(labels, grid, level, known.levels[level], boxes, centre, directions[level])
        for level, centre in centres.items()
    ]


def _found_body(
    labels: LabelArray,
    grid: Grid,
    level: str,
    integer: int,
    boxes: Mapping[int, Box],
    centre_mm: Position,
    superior: Position,
) -> MeasuredBody:
    box = boxes[integer]
    body = None
    if level not in WITHOUT_BODY:
        crop = crop_around(labels, grid, [box], MARGIN_MM)
        body = find_body(crop, integer, centre_mm, superior, upright=level not in WITHOUT_HEIGHT)
    cut = box.reaches_border(grid.shape) if body is None else _is_cut(body, grid)
    open_behind = body is not None and body.depth_mm > _deepest(level) * body.width_mm
    usable = body is not None and not cut and not open_behind
    return MeasuredBody(
        level=level,
        integer=integer,
        box=box,
        centre_mm=centre_mm if body is None else body.centroid_mm,
        body=body,
        heights=body_heights(body) if body is not None and usable and level not in WITHOUT_HEIGHT else None,
        cut=cut,
        usable=usable,
    )


def _directions(centres: Mapping[str, Position]) -> dict[str, Position]:
    """Return the direction to the head at each vertebra: along the line through its neighbours.

    C1, whose middle lies in the canal, has none, and is no neighbour. Where single names are exchanged, the
    direction of all vertebrae counts.
    """
    names = [name for name in centres if name not in WITHOUT_BODY]
    points = np.array([centres[name] for name in names]).reshape(-1, 3)
    found = {name: np.array([0.0, 0.0, 1.0]) for name in centres}
    for place, name in enumerate(names):
        above, below = points[max(0, place - 1)], points[min(len(points) - 1, place + 1)]
        way = above - below
        if np.linalg.norm(way) > 1.0:
            found[name] = way if way @ (points[0] - points[-1]) >= 0 else -way
    return found


def _deepest(level: str) -> float:
    return DEEPEST if INDEX[level] <= INDEX["T9"] else DEEPEST_BELOW_T9


def _is_cut(body: VertebralBody, grid: Grid) -> bool:
    """Return whether the image's border cuts a body: one of its corners lies there or beyond."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.5
    x, y, side = (signs * [0.9 * body.width_mm, 0.9 * body.depth_mm, 1.0]).T
    planes = np.where(side[:, None] > 0, body.upper, body.lower)
    z = planes[:, 0] + planes[:, 1] * x + planes[:, 2] * y
    index = grid.index(body.frame.points(x, y, z))
    return bool((index < 0.5).any() or (index > np.array(grid.shape) - 1.5).any())
