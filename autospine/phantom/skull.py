"""The bones of head and throat: cranium, face, jaw with teeth, hyoid, larynx; none of it labelled.

Positions are in a frame at the atlas (its origin is that of C1), x left, y posterior, z superior, mm, for a
head of mean size: a cranium 182 mm long and 145 mm wide, 132 mm from basion to bregma, 100 mm to nasion
(Howells, Cranial Variation in Man, 1973), with basion 4 to 5 mm above the dens.
"""

from itertools import pairwise

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.loft import Loft
from autospine.phantom.shapes import (
    Capsule,
    Custom,
    Ellipsoid,
    Field,
    Frame,
    Number,
    Part,
    Plate,
    Point,
    render,
    rotation,
    smooth_max,
    smooth_min,
)
from autospine.phantom.skeleton import Skeleton, paint_plain_bone

_BONE_MM = 6.5
# Where the floor of the cranium lies: y and height of the outer surface, mm. Behind, it is the ellipsoids'.
_FLOOR = ((-105, 47), (-62, 45), (-46, 29), (-15, 24), (0, 14), (18, -20))
_ANYHOW = -100.0
"""Gap in mm to other bones of a bone that grows out of them."""

# Places along one half of a dental arch: x, y and radius of the crown, mm.
_ARCH = (
    (4.2, -98.5, 3.4),
    (11.5, -96.5, 3.1),
    (17.5, -92, 3.7),
    (22, -85.5, 3.6),
    (24.5, -78.5, 3.6),
    (26.5, -70, 5.0),
    (28.5, -59.5, 5.0),
    (29.5, -49.5, 4.6),
)


def head_scale(spine: Spine) -> float:
    """Return the size of the head relative to the mean; heads differ less than spines do."""
    return 1 + 0.6 * (spine.scale - 1)


def head_frame(spine: Spine) -> Frame:
    """Return the frame of the head: at the atlas, held more upright than it."""
    atlas = spine.vertebrae[0].frame
    up = atlas.axes[:, 2]
    pitch = float(np.rad2deg(np.arctan2(-up[1], up[2])))
    roll = float(np.rad2deg(np.arctan2(up[0], up[2])))
    return Frame(origin_mm=atlas.origin_mm, axes=rotation(pitch=0.45 * pitch, roll=roll))


def cranium(k: float) -> Custom:
    """Return the solid that the cranium and its contents fill."""
    above = Ellipsoid(centre_mm=(0, -3 * k, 83 * k), radii_mm=(72 * k, 91 * k, 66 * k))
    below = Ellipsoid(centre_mm=(0, 36 * k, 40 * k), radii_mm=(54 * k, 48 * k, 33 * k))
    places, heights = zip(*_FLOOR, strict=True)

    def distance(x: Field, y: Field, z: Field) -> Field:
        whole = smooth_min(above.distance(x, y, z), below.distance(x, y, z), 14.0 * k)
        floor = np.interp(y, np.asarray(places) * k, np.asarray(heights) * k).astype(np.float32)
        return smooth_max(whole, np.asarray(floor - z, np.float32), 6.0)

    return Custom(low_mm=(-76 * k, -98 * k, -2 * k), high_mm=(76 * k, 92 * k, 152 * k), function=distance)


def paint_skull(skeleton: Skeleton, spine: Spine, rng: np.random.Generator) -> None:
    """Paint cranium with brain, face, jaw, teeth and the frame of the throat."""
    frame, k = head_frame(spine), head_scale(spine)
    teeth = _teeth(k, rng)
    _throat(skeleton, spine, calcified=float(rng.random()))
    inside = render(skeleton.picture.raster, frame, (Part(shape=cranium(k)),), margin_mm=4.0)
    if inside is not None:
        box, distance = inside
        spared = np.maximum(distance, -skeleton.canal.wall[box])
        skeleton.picture.paint("csf", spared + np.float32(_BONE_MM), box)
        gyri = spared + np.float32(_BONE_MM + 2.0) + np.float32(1.2) * skeleton.picture.cloud[box]
        skeleton.picture.paint("brain", gyri, box)
    paint_plain_bone(skeleton, frame, _base(k), gap_mm=1.2, region="C", shell_mm=1.9)
    paint_plain_bone(skeleton, frame, _face(k), gap_mm=_ANYHOW, region="C", shell_mm=1.2)
    for side in (1, -1):
        paint_plain_bone(skeleton, frame, _jaw(k, side), gap_mm=1.2, region="C", shell_mm=2.2)
    for root, crown in teeth:
        for tissue, part in (("dentine", root), ("enamel", crown)):
            drawn = render(skeleton.picture.raster, frame, (part,), margin_mm=1.5)
            if drawn is not None:
                skeleton.picture.paint(tissue, drawn[1], drawn[0])
                skeleton.bone[drawn[0]] = np.minimum(skeleton.bone[drawn[0]], drawn[1])


def _rods(
    k: float, side: int, points: tuple[tuple[Point, Number], ...], stretch: Point = (1, 1, 1)
) -> list[Part]:
    """Return a chain of rods through points, each with its radius."""
    return [
        Part(
            shape=Capsule(
                start_mm=(side * a[0] * k, a[1] * k, a[2] * k),
                end_mm=(side * b[0] * k, b[1] * k, b[2] * k),
                radius_mm=(r * k, s * k),
                stretch=stretch,
            ),
            blend_mm=2.5,
        )
        for (a, r), (b, s) in pairwise(points)
    ]


def _egg(k: float, side: int, centre: Point, radii: Point) -> Ellipsoid:
    """Return an ellipsoid, mirrored for the right side."""
    x, y, z = (value * k for value in centre)
    a, b, c = (value * k for value in radii)
    return Ellipsoid(centre_mm=(side * x, y, z), radii_mm=(a, b, c))


def _base(k: float) -> tuple[Part, ...]:
    """Return the cranium's shell, with petrous bones, mastoids, condyles, clivus and sphenoid."""
    solid = cranium(k)

    def shell(x: Field, y: Field, z: Field) -> Field:
        outer = solid.distance(x, y, z)
        # The vault is 5 to 8 mm thick, thinnest at the temples.
        thick = np.float32(_BONE_MM) - np.float32(2.5) * np.clip(np.abs(x) / np.float32(70 * k), 0, 1) ** 4
        return smooth_max(outer, -(outer + thick), 1.5)

    parts = [Part(shape=Custom(low_mm=solid.low_mm, high_mm=solid.high_mm, function=shell), blend_mm=0)]
    for side in (1, -1):
        parts += _rods(k, side, (((62, 2, 24), 10), ((36, -10, 28), 9), ((14, -22, 33), 6)))
        parts.append(Part(shape=_egg(k, side, (56, 12, 8), (11, 14, 19)), blend_mm=5))
        parts.append(Part(shape=_egg(k, side, (19, 2, 14), (7, 11, 7)), blend_mm=4))
        # Floor of the middle fossa, and the wing of the sphenoid in front of it.
        parts += _rods(k, side, (((16, -36, 38), 6), ((44, -50, 44), 5), ((60, -54, 58), 4)))
    parts += _rods(k, 1, (((0, -7, 20), 7), ((0, -24, 36), 8), ((0, -44, 44), 12)), (1.7, 1, 1))
    for side in (1, -1):
        parts.append(Part(shape=_egg(k, side, (7, -44, 44), (9, 11, 10)), blend_mm=0.5, carve=True))
    return tuple(parts)


def _face(k: float) -> tuple[Part, ...]:
    """Return upper jaw with palate, the walls of its sinuses and of the orbits, cheek and nasal bones."""
    arch = tuple((x, y, 7.0) for x, y, _ in reversed(_ARCH[1::2]))
    line = (*arch, *((-x, y, r) for x, y, r in reversed(arch)))
    jaw = Loft(heights_mm=(-17, 0, 8), sections=(line, line, line), gain=k, rim_mm=3.0)
    parts = [
        Part(shape=jaw, blend_mm=0),
        Part(shape=_egg(k, 1, (0, -70, 3), (26, 29, 3)), blend_mm=2),
        *_rods(k, 1, (((0, -94, 62), 4.5), ((0, -107, 38), 3.5)), (1.6, 1, 1)),
    ]
    for side in (1, -1):
        parts.append(Part(shape=_egg(k, side, (30, -72, 20), (20, 20, 21)), blend_mm=3))
        parts += _rods(k, side, (((44, -86, 28), 6.5), ((57, -72, 24), 5.5), ((66, -45, 25), 3.2)))
        parts += _rods(k, side, (((66, -45, 25), 3.2), ((69, -12, 28), 4.0)), (0.8, 1, 1.3))
        parts += _rods(k, side, (((50, -80, 30), 4.5), ((53, -78, 48), 3.5), ((47, -86, 66), 4.0)))
        parts += _rods(k, side, (((47, -86, 66), 4.0), ((28, -96, 69), 4.0), ((6, -96, 64), 5.0)))
        parts += _rods(k, side, (((14, -40, 32), 3.5), ((16, -36, -6), 2.5)), (0.8, 2.4, 1))
        parts += _rods(k, side, (((13, -92, 58), 3.0), ((17, -90, 26), 3.5)), (0.7, 2.0, 1))
        parts.append(Part(shape=_egg(k, side, (30, -72, 20), (17, 17.5, 18)), blend_mm=1, carve=True))
    corners = ((-92, 4), (-38, 4), (-34, 34), (-60, 52), (-95, 44))
    septum = Plate(corners_mm=tuple((y * k, z * k) for y, z in corners), half_thickness_mm=(0.9, 1.2))
    parts.append(Part(shape=septum, blend_mm=0.5))
    return tuple(parts)


def _jaw(k: float, side: int) -> tuple[Part, ...]:
    """Return one half of the mandible: body, ramus, condyle and coronoid process."""
    body = (((0, -93, -46), 6.5), ((19, -88, -46), 6.0), ((38, -60, -43), 6.0), ((47, -32, -36), 5.0))
    chin = (((0, -96, -55), 6.0), ((16, -91, -55), 5.0))
    ramus = (((47, -27, -32), 3.8), ((50, -20, 8), 3.4))
    neck = (((50, -18, 4), 4.0), ((52, -12, 18), 4.4))
    coronoid = (((49, -32, -8), 3.4), ((49, -38, 14), 2.6))
    condyle = Capsule(
        start_mm=(side * 46 * k, -10 * k, 20 * k),
        end_mm=(side * 58 * k, -10 * k, 20 * k),
        radius_mm=(4.5 * k, 4.5 * k),
    )
    return (
        *_rods(k, side, body, (1, 1, 2.1)),
        *_rods(k, side, chin),
        *_rods(k, side, ramus, (1, 3.6, 1)),
        *_rods(k, side, neck, (1, 1.3, 1)),
        *_rods(k, side, coronoid, (1, 1.8, 1)),
        Part(shape=condyle, blend_mm=2),
    )


def _teeth(k: float, rng: np.random.Generator) -> list[tuple[Part, Part]]:
    """Draw roots and crowns; older people miss some, and have no third molars left."""
    missing = float(rng.beta(0.6, 2.5)) * 0.8
    result = []
    for upper in (True, False):
        for side in (1, -1):
            for number, (x, y, radius) in enumerate(_ARCH, start=1):
                if rng.random() < (missing + 0.5 if number == 8 else missing):
                    continue
                a, b = (side * x * 0.96, y + 3.0) if not upper else (side * x, y)
                edge, neck, tip = (-25.0, -17.0, -3.0) if upper else (-25.5, -33.5, -47.0)
                root = _tooth(k, (a, b, neck), (0.92 * a, b + 2, tip), (0.85 * radius, 0.35 * radius))
                crown = _tooth(
                    k,
                    (a, b, edge + 0.8 * np.sign(neck - edge) * radius),
                    (a, b, neck),
                    (radius, 0.9 * radius),
                )
                result.append((root, crown))
    return result


def molars(k: float) -> list[tuple[Point, float]]:
    """Return the middle of each molar's and premolar's crown in the head's frame, and its radius, mm."""
    return [
        ((side * x * k, y * k, height * k), 0.85 * radius * k)
        for side in (1, -1)
        for height in (-20.5, -29.5)
        for x, y, radius in _ARCH[3:7]
    ]


def _tooth(k: float, start: Point, end: Point, radii: tuple[Number, Number]) -> Part:
    """Return a crown or a root."""
    (ax, ay, az), (bx, by, bz) = start, end
    return Part(
        shape=Capsule(
            start_mm=(ax * k, ay * k, az * k),
            end_mm=(bx * k, by * k, bz * k),
            radius_mm=(radii[0] * k, radii[1] * k),
        ),
        blend_mm=0,
    )


def _throat(skeleton: Skeleton, spine: Spine, *, calcified: float) -> None:
    """Paint the hyoid, and the cartilages of the larynx, which ossify with age."""
    frames = {v.name: v.frame for v in spine.vertebrae}
    k = spine.scale
    for side in (1, -1):
        horn = _rods(k, side, (((21, -30, 6), 1.8), ((14, -46, 2), 2.6), ((0, -52, 1), 3.2)), (1, 1, 1.4))
        paint_plain_bone(
            skeleton,
            Frame(origin_mm=frames["C4"].origin_mm, axes=np.eye(3)),
            tuple(horn),
            gap_mm=0.5,
            region="C",
            shell_mm=1.0,
        )
        wing = _rods(k, side, (((22, -22, 4), 1.5), ((3, -50, 2), 1.7)), (1, 1, 7.0))
        ring = _rods(k, side, (((0, -16, -2), 2.2), ((12, -24, -3), 2.0), ((0, -36, -4), 2.0)), (1, 1, 3.0))
        for name, parts in (("C5", wing), ("C6", ring)):
            drawn = render(
                skeleton.picture.raster,
                Frame(origin_mm=frames[name].origin_mm, axes=np.eye(3)),
                tuple(parts),
                margin_mm=2.0,
            )
            if drawn is not None:
                box, distance = drawn
                skeleton.picture.paint("annulus", distance, box)
                patch = np.clip(
                    (skeleton.picture.cloud[box] + np.float32(4 * calcified - 2.6)) * np.float32(2), 0, 1
                )
                skeleton.picture.paint(
                    "cortical", distance + np.float32(1.2) * (1 - patch), box, strength=0.6
                )
