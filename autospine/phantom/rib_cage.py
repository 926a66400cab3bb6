"""The rib cage: twelve pairs of ribs with their cartilage, and the sternum; none of it labelled.

The cage is an oval at each height; ribs lie on it. Each runs from its vertebra around the side and falls on
its way to the front, as ribs of adults do (the front end of the sixth one lies four vertebrae lower
than its head); cartilage leads up to the sternum again.
"""

from dataclasses import dataclass

import numpy as np

from autospine.core.types import Slices3
from autospine.phantom.anatomy import Spine, Vertebra
from autospine.phantom.shapes import (
    FAR_MM,
    Capsule,
    Field,
    Part,
    inside,
    intersection,
    render,
    smooth_max,
    smooth_min,
)
from autospine.phantom.skeleton import Skeleton, paint_loose_bone
from autospine.phantom.soft_tissue import Build, Space

# Half width, front and back of the middle of the ribs by level, relative to the bodies' centres, mm.
_OVAL: dict[str, tuple[float, float, float]] = {
    "C7": (34, -28, 18),
    "T1": (50, -40, 30),
    "T2": (70, -54, 42),
    "T3": (87, -70, 50),
    "T4": (100, -86, 54),
    "T6": (118, -110, 57),
    "T8": (129, -122, 58),
    "T10": (133, -124, 56),
    "T12": (130, -116, 50),
    "L2": (122, -104, 46),
}
# Fall from back to front end, mm, and angle around the cage at which bone gives way to cartilage, radians.
_RIBS: dict[int, tuple[float, float]] = {
    1: (28, 2.40),
    2: (46, 2.55),
    3: (60, 2.60),
    4: (70, 2.60),
    5: (78, 2.55),
    6: (84, 2.48),
    7: (88, 2.38),
    8: (85, 2.22),
    9: (78, 2.06),
    10: (66, 1.90),
    11: (52, 1.30),
    12: (30, 0.80),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cage:
    """The oval on which the ribs lie."""

    distance: Field
    """Distance to the middle of the ribs, mm, negative inside the chest."""
    angle: Field
    """Angle around the cage from the back (0) to the front (pi), radians."""
    top_mm: float
    """Height of the sternum's upper edge, mm."""
    length_mm: float
    """Length of the sternum, mm."""


def draw_cage(space: Space, spine: Spine, build: Build) -> Cage | None:
    """Return the cage of a body, or None where the field of view does not reach it."""
    levels = space.levels
    if space.z.max() < levels["L2"] or space.z.min() > levels["C7"] + 10:
        return None
    size = spine.scale * (0.75 + 0.25 * build.girth)
    columns = [{name: row[i] * size for name, row in _OVAL.items()} for i in range(3)]
    wide, front, back = (space.along(column) for column in columns)
    deep, middle = (back - front) / 2, (back + front) / 2
    qx, qy = space.u / wide, (space.v - middle) / deep
    length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
    fuller = 1 - np.float32(0.06) * (2 * qx * qy / (length * length)) ** 2
    slope = np.sqrt((qx / wide) ** 2 + (qy / deep) ** 2) / length
    return Cage(
        distance=np.asarray((length * fuller - 1) / (slope + np.float32(1e-4)), np.float32),
        angle=np.arctan2(np.abs(qx), qy),
        top_mm=levels["T2"] - 12.0,
        length_mm=levels["T2"] - levels["T9"] - 6.0,
    )


def front_of_chest(space: Space, spine: Spine, build: Build, height_mm: float) -> float:
    """Return how far in front of (negative) the bodies the sternum lies at a height, mm."""
    size = spine.scale * (0.75 + 0.25 * build.girth)
    known = sorted((space.levels[name], row[1]) for name, row in _OVAL.items())
    return float(np.interp(height_mm, [a for a, _ in known], [b for _, b in known])) * size


def paint_rib_cage(skeleton: Skeleton, space: Space, spine: Spine, cage: Cage | None, age: float) -> None:
    """Paint ribs, costal cartilage and sternum.

    Args:
        skeleton: What is being painted.
        space: Coordinates around the spine.
        spine: The spine.
        cage: The oval of the ribs, None where it is out of view.
        age: Degree of calcification of the cartilage, 0 to 1.
    """
    if cage is None:
        return
    _sternum(skeleton, space, cage, spine.scale)
    for vertebra in spine.vertebrae:
        if vertebra.region == "T":
            _rib(skeleton, space, cage, vertebra, spine.scale, age)


def _slab(space: Space, low: float, high: float) -> Slices3 | None:
    """Return the slices of the raster that reach into a range of heights."""
    near = [(space.z > low) & (space.z < high)]
    rows = [np.flatnonzero(near[0].any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if any(len(row) == 0 for row in rows):
        return None
    first, second, third = (slice(int(row[0]), int(row[-1]) + 1) for row in rows)
    return first, second, third


def _rib(skeleton: Skeleton, space: Space, cage: Cage, vertebra: Vertebra, k: float, age: float) -> None:
    """Paint both ribs of a vertebra."""
    number = int(vertebra.name[1:])
    fall, end = _RIBS.get(number, (20.0, 0.55))
    fall *= k
    start = float(vertebra.frame.origin_mm[2] + 0.15 * vertebra.size.height)
    box = _slab(space, start - fall - 70 * k, start + 12)
    if box is not None:
        u, z = np.abs(space.u[box]), space.z[box]
        angle, wall = cage.angle[box], cage.distance[box]
        path = start - np.float32(fall / (1 - np.cos(end))) * (1 - np.cos(np.minimum(angle, np.float32(end))))
        rod = np.hypot(wall, np.float32(0.85) * (z - path) / np.float32(1.75)) - np.float32(3.3 * k)
        around = (angle - np.float32(end)) * np.float32(95 * k)
        bone = smooth_max(rod, np.maximum(around, np.float32(30 * k) - u), 2.0)
        neck = _neck(skeleton, vertebra, k, box)
        paint_loose_bone(skeleton, smooth_min(bone, neck, 4.0), box, gap_mm=1.0, region="T", shell_mm=1.0)
        if number <= 10:
            _cartilage(skeleton, space, cage, box, (number, start - fall, end, k, age))


def _neck(skeleton: Skeleton, vertebra: Vertebra, k: float, box: Slices3) -> Field:
    """Return the distance to the ribs' necks: from the joint at the bodies past the transverse process."""
    s = vertebra.size
    rear = s.depth / 2 + s.canal_depth + 12
    result = np.full([part.stop - part.start for part in box], FAR_MM, dtype=np.float32)
    parts = []
    for side in (1, -1):
        head, bend = (
            (side * 0.47 * s.width, 0.36 * s.depth, 0.42 * s.height),
            (side * 31 * k, rear, 0.15 * s.height),
        )
        parts.append(
            Part(
                shape=Capsule(start_mm=head, end_mm=bend, radius_mm=(3.6, 3.4), stretch=(1, 1, 1.5)),
                blend_mm=0,
            )
        )
    drawn = render(skeleton.picture.raster, vertebra.frame, tuple(parts), margin_mm=4.0)
    common = None if drawn is None else intersection(drawn[0], box)
    if drawn is not None and common is not None:
        result[inside(common, box)] = drawn[1][inside(common, drawn[0])]
    return result


def _cartilage(
    skeleton: Skeleton, space: Space, cage: Cage, box: Slices3, rib: tuple[int, float, float, float, float]
) -> None:
    """Paint the cartilage from a rib's end up to the sternum, or to the cartilage above."""
    number, low, end, k, age = rib
    u, z, angle = np.abs(space.u[box]), space.z[box], cage.angle[box]
    # Where it arrives: the first seven at the sternum, one below the other, the others at their neighbour.
    stop = {8: 2.80, 9: 2.55, 10: 2.30}.get(number, 3.02)
    share = min(number - 0.3, 7.0) / 7.0
    high = cage.top_mm - cage.length_mm * 0.9 * share - 14 * k * max(0, number - 7) * 1.6
    t = np.clip((angle - np.float32(end)) / np.float32(stop - end), 0, 1)
    path = np.float32(low) + np.float32(high - low) * t * t * (3 - 2 * t)
    rod = np.hypot(cage.distance[box], (z - path) / np.float32(1.5)) - np.float32(3.8 * k)
    ends = np.maximum(np.float32(end) - angle, angle - np.float32(stop)) * np.float32(95 * k)
    distance = smooth_max(np.asarray(rod, np.float32), np.asarray(ends, np.float32), 1.5)
    distance = np.maximum(distance, np.float32(0.3) - skeleton.bone[box])
    if number <= 7:
        distance = np.maximum(distance, np.float32(14 * k) - u)
    picture = skeleton.picture
    picture.paint("cartilage", distance, box)
    patch = np.clip((picture.cloud[box] + np.float32(3.2 * age - 2.2)) * np.float32(2), 0, 1)
    shell = np.abs(distance + np.float32(1.2)) - np.float32(1.0)
    picture.paint("calcium", shell + np.float32(2.5) * (1 - patch), box, strength=0.7)


def _sternum(skeleton: Skeleton, space: Space, cage: Cage, k: float) -> None:
    """Paint manubrium, body and xiphoid process."""
    top, length = cage.top_mm, cage.length_mm
    box = _slab(space, top - 1.2 * length, top + 6)
    if box is None:
        return
    u, z = np.abs(space.u[box]), space.z[box]
    depth = (np.float32(top) - z) / np.float32(length)
    places, halves = (0.0, 0.10, 0.27, 0.32, 0.6, 0.85, 1.0, 1.15), (24, 30, 17, 15, 18, 21, 11, 5)
    half = np.interp(depth, places, np.asarray(halves) * k).astype(np.float32)
    plate = np.abs(cage.distance[box] + np.float32(1.0)) - np.float32(5.6 * k)
    front = np.float32(1.8) - cage.angle[box]
    body = smooth_max(plate, u - half, 4.0)
    body = np.maximum(body, front * np.float32(60))
    body = smooth_max(body, np.maximum(z - np.float32(top), np.float32(top - 1.15 * length) - z), 4.0)
    # The joint between manubrium and body.
    body = np.maximum(body, np.float32(1.2) - np.abs(z - np.float32(top - 0.29 * length)))
    paint_loose_bone(skeleton, np.asarray(body, np.float32), box, gap_mm=1.0, region="T", shell_mm=1.0)
