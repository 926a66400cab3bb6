"""Soft tissue of the head: its outline, cavities filled with air, eyes and tongue.

Positions are in the head's frame, see `skull`.
"""

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.shapes import (
    Capsule,
    Custom,
    Ellipsoid,
    Field,
    Part,
    Point,
    Raster,
    render,
    smooth_max,
    smooth_min,
)
from autospine.phantom.skeleton import Skeleton
from autospine.phantom.skull import cranium, head_frame, head_scale
from autospine.phantom.soft_tissue import Space

_SCALP_MM = 6.0
# Half width and front of the face's skin by height, mm.
_FACE = (
    (-66, 28, -90),
    (-58, 45, -103),
    (-40, 60, -107),
    (-15, 66, -110),
    (10, 73, -109),
    (45, 76, -104),
    (66, 73, -101),
)


def with_head(raster: Raster, space: Space, spine: Spine, trunk: Field) -> Field:
    """Return the distance to the skin of trunk, neck and head; the neck ends in the head."""
    if space.z.max() < space.levels["C4"] - 40:
        return trunk
    ceiling = np.asarray(space.z - np.float32(space.levels["C1"] + 22), np.float32)
    result = smooth_max(trunk, ceiling, 16.0)
    k = head_scale(spine)
    parts = (
        Part(shape=_scalp(k), blend_mm=0),
        Part(shape=_face(k), blend_mm=16),
        Part(shape=_rod(k, (0, -99, 50), (0, -115, 18), (7, 11)), blend_mm=6),
    )
    drawn = render(raster, head_frame(spine), parts, margin_mm=40.0)
    if drawn is not None:
        box, head = drawn
        result[box] = smooth_min(result[box], head, 14.0)
    return result


def _scalp(k: float) -> Custom:
    """Return the cranium with scalp and the muscles of the temples."""
    solid = cranium(k)
    pad = 2.0 * _SCALP_MM

    def distance(x: Field, y: Field, z: Field) -> Field:
        return np.asarray(solid.distance(x, y, z) - np.float32(_SCALP_MM), np.float32)

    low, high = solid.bounds()
    return Custom(
        low_mm=(low[0] - pad, low[1] - pad, low[2] - pad),
        high_mm=(high[0] + pad, high[1] + pad, high[2] + pad),
        function=distance,
    )


def _face(k: float) -> Custom:
    """Return the face from the chin to the brow: ovals open to the neck behind."""
    heights, halves, fronts = (
        np.asarray(column, dtype=np.float64) * k for column in zip(*_FACE, strict=True)
    )

    def distance(x: Field, y: Field, z: Field) -> Field:
        """Return the signed distance to the face, mm."""
        wide = np.interp(z, heights, halves).astype(np.float32)
        front = np.interp(z, heights, fronts).astype(np.float32)
        deep = (np.float32(12 * k) - front) / 2
        qx, qy = x / wide, (y - front - deep) / deep
        length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
        fuller = 1 - np.float32(0.10) * (2 * qx * qy / (length * length)) ** 2
        slope = np.sqrt((qx / wide) ** 2 + (qy / deep) ** 2) / length
        oval = (length * fuller - 1) / (slope + np.float32(1e-4))
        ends = np.maximum(z - np.float32(heights[-1]), np.float32(heights[0]) - z)
        return smooth_max(np.asarray(oval, np.float32), np.asarray(ends, np.float32), 12.0)

    reach = 78 * k
    return Custom(low_mm=(-reach, -114 * k, -70 * k), high_mm=(reach, 14 * k, 70 * k), function=distance)


def _rod(
    k: float, start: Point, end: Point, radii: tuple[float, float], stretch: Point = (1, 1, 1)
) -> Capsule:
    """Return a rod at a scale."""
    (ax, ay, az), (bx, by, bz) = start, end
    return Capsule(
        start_mm=(ax * k, ay * k, az * k),
        end_mm=(bx * k, by * k, bz * k),
        radius_mm=(radii[0] * k, radii[1] * k),
        stretch=stretch,
    )


# Centre and half axes of cavities of one side, mm: maxillary, sphenoid, frontal and ethmoid sinus; the nose.
_SINUSES: tuple[tuple[Point, Point], ...] = (
    ((30, -72, 20), (15.5, 16, 16.5)),
    ((7, -44, 44), (8.2, 10, 9)),
    ((9, -88, 74), (9, 5, 10)),
    ((9, -68, 47), (5, 20, 9)),
)
_NOSE: tuple[tuple[Point, Point], ...] = (
    ((7.5, -66, 22), (6.0, 28, 19)),
    ((7.5, -72, 12), (6.0, 24, 8)),
    ((7.0, -42, 18), (6.0, 14, 11)),
)


def paint_cavities(skeleton: Skeleton, spine: Spine, rng: np.random.Generator) -> None:
    """Paint what the bones of the face hold: air in nose, throat, sinuses and mastoids, and the eyes."""
    k = head_scale(spine)
    swollen = [float(value) for value in rng.random(5)]
    for side in (1, -1):
        _orbit(skeleton, spine, k, side)
        for (centre, radii), blocked in zip(_SINUSES, swollen, strict=False):
            shape = _egg(k, (side * centre[0], centre[1], centre[2]), radii)
            _fill(skeleton, spine, shape, "fluid" if blocked < 0.06 else "gas", spare_mm=-0.6)
        for centre, radii in _NOSE:
            shape = _egg(k, (side * centre[0], centre[1], centre[2]), radii)
            _fill(skeleton, spine, shape, "gas", spare_mm=0.4)
        for height, radius in ((13, 4.6), (25, 3.6)):
            turbinate = _rod(k, (side * 9.5, -84, height), (side * 9.5, -50, height), (radius, radius))
            _fill(skeleton, spine, turbinate, "wall", spare_mm=0.3)
        mastoid = _egg(k, (side * 56, 12, 10), (8.5, 11, 15))
        _cells(skeleton, spine, mastoid)
        ear = _rod(k, (side * 56, -4, 26), (side * 80, -2, 26), (3.0, 4.0))
        _fill(skeleton, spine, ear, "gas", spare_mm=-20)
    throat = _rod(k, (0, -36, 24), (0, -25, -12), (10, 9), (1.3, 0.9, 1))
    _fill(skeleton, spine, throat, "gas", spare_mm=2.0)
    if swollen[4] < 0.5:
        _fill(skeleton, spine, _egg(k, (0, -72, -8), (20, 22, 4)), "gas", spare_mm=1.0)


def _egg(k: float, centre: Point, radii: Point) -> Ellipsoid:
    """Return an ellipsoid at a scale."""
    (x, y, z), (a, b, c) = centre, radii
    return Ellipsoid(centre_mm=(x * k, y * k, z * k), radii_mm=(a * k, b * k, c * k))


def _fill(
    skeleton: Skeleton, spine: Spine, shape: Ellipsoid | Capsule, tissue: str, *, spare_mm: float
) -> None:
    """Paint a tissue that keeps a distance from bone, or with a negative one reaches into it."""
    drawn = render(skeleton.picture.raster, head_frame(spine), (Part(shape=shape),), margin_mm=3.0)
    if drawn is not None:
        box, distance = drawn
        distance = distance + np.float32(0.7) * skeleton.picture.cloud[box]
        skeleton.picture.paint(tissue, np.maximum(distance, np.float32(spare_mm) - skeleton.bone[box]), box)


def _cells(skeleton: Skeleton, spine: Spine, shape: Ellipsoid) -> None:
    """Paint a bone's air cells: gas wherever the fine texture is high."""
    drawn = render(skeleton.picture.raster, head_frame(spine), (Part(shape=shape),), margin_mm=3.0)
    if drawn is not None:
        box, distance = drawn
        cells = np.clip(np.float32(0.55) + np.float32(0.5) * skeleton.picture.grain[box], 0, 1)
        share = np.clip(-distance / np.float32(2), 0, 1) * cells
        skeleton.picture.mix("gas", np.asarray(share, np.float32), box)


def _orbit(skeleton: Skeleton, spine: Spine, k: float, side: int) -> None:
    """Paint the fat of an orbit, its muscles, the optic nerve and the eye."""
    cone = _rod(k, (side * 33, -82, 48), (side * 18, -48, 46), (18, 8))
    _fill(skeleton, spine, cone, "fat", spare_mm=0.3)
    nerve = _rod(k, (side * 32, -78, 48), (side * 16, -46, 46), (2.4, 2.2))
    _fill(skeleton, spine, nerve, "brain", spare_mm=0.3)
    for x, z in ((10, 0), (-10, 0), (0, 10), (0, -10)):
        strap = _rod(
            k, (side * (33 + x), -80, 48 + z), (side * (19 + 0.4 * x), -50, 46 + 0.4 * z), (2.2, 1.6)
        )
        _fill(skeleton, spine, strap, "muscle", spare_mm=0.3)
    _fill(skeleton, spine, _egg(k, (side * 32, -91, 48), (12.5, 12.5, 12.5)), "wall", spare_mm=0.3)
    _fill(skeleton, spine, _egg(k, (side * 32, -91, 48), (11, 11, 11)), "fluid", spare_mm=0.3)
