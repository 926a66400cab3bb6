"""The shape of vertebrae: body, arch and processes of each region, in the vertebra's own frame.

x points left, y posterior, z superior; the origin is the centre of the body.
"""

import numpy as np

from autospine.phantom.anatomy import Vertebra, VertebraSize
from autospine.phantom.shapes import Capsule, Custom, Ellipsoid, Field, Number, Part, Plate, Point, smooth_max


def body_part(vertebra: Vertebra) -> Part:
    """Return the vertebral body: kidney-like cross-section, waist, wedge and concave endplates."""
    size = vertebra.size
    spur = 0.14 * vertebra.spur
    reach = ((0.5 + spur) * size.width + 3, (0.5 + spur) * size.depth + 3, size.height / 2 + 3)

    def distance(x: Field, y: Field, z: Field) -> Field:
        wall = footprint(vertebra, x, y, z, waist=True)
        ends = np.maximum(upper_endplate(vertebra, x, y, z), lower_endplate(vertebra, x, y, z))
        return smooth_max(wall, ends, 2.5 if vertebra.region != "C" else 1.5)

    return Part(
        shape=Custom(low_mm=(-reach[0], -reach[1], -reach[2]), high_mm=reach, function=distance), blend_mm=0
    )


def footprint(vertebra: Vertebra, x: Field, y: Field, z: Field, *, waist: bool) -> Field:
    """Return the distance in mm to the body's side wall: an oval, hollow behind, narrowest half-way up."""
    size = vertebra.size
    half_width, half_depth = size.width / 2, size.depth / 2
    level = np.clip(2 * z / np.float32(max(size.height, 1.0)), -1, 1)
    # Between waist and endplate the wall flares, and ends in a lip.
    square = level * level
    lip = square * square
    flare = np.float32(0.8) * square + np.float32(0.35) * lip * lip * square
    narrow = np.asarray(1 + np.float32(0.13 if waist else 0.0) * (flare - 1), np.float32)
    if waist and vertebra.spur > 0:
        narrow = narrow + _spurs(vertebra, x, y, lip * lip * lip)
    a, b = half_width * narrow, half_depth * narrow
    qx, qy = x / a, y / b
    length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
    # Between an ellipse and a rounded rectangle: fuller at the four corners than an ellipse.
    fuller = 1 - 0.07 * (2 * qx * qy / (length * length)) ** 2
    slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) / length
    oval = (length * fuller - 1) / (slope + np.float32(1e-4))
    # The canal hollows the posterior wall; thoracic bodies most.
    hollow = {"C": 0.03, "T": 0.13, "L": 0.10}[vertebra.region]
    dent = (
        np.float32(half_depth) * (1 - hollow * np.exp(-((x / np.float32(0.36 * half_width)) ** 2))) * narrow
    )
    return smooth_max(np.asarray(oval, np.float32), np.asarray(y - 0.97 * dent, np.float32), 3.0)


def upper_endplate(vertebra: Vertebra, x: Field, y: Field, z: Field) -> Field:
    """Return the height in mm above the upper endplate (negative below it, towards the body)."""
    return np.asarray(z - _endplate(vertebra, x, y, cranial=True), np.float32)


def lower_endplate(vertebra: Vertebra, x: Field, y: Field, z: Field) -> Field:
    """Return the height in mm below the lower endplate (negative above it, towards the body)."""
    return np.asarray(-z - _endplate(vertebra, x, y, cranial=False), np.float32)


def _endplate(vertebra: Vertebra, x: Field, y: Field, *, cranial: bool) -> Field:
    """Return an endplate's distance from the middle of the body in mm."""
    size = vertebra.size
    qx, qy = x / np.float32(size.width / 2), y / np.float32(size.depth / 2)
    middle = np.clip(1 - qx * qx - qy * qy, 0, 1)
    depth = {"C": 1.2, "T": 1.6, "L": 2.6}[vertebra.region] * (1.0 if cranial else 0.9)
    height = size.height / 2 + np.float32(vertebra.wedge / 4) * qy - np.float32(depth) * middle
    if vertebra.region == "C":
        # Uncinate processes: the upper endplate rises at its sides, the lower one gives way.
        lip = np.float32(3.2 if cranial else -1.8) * np.clip(np.abs(qx) - 0.55, 0, 0.5) / 0.45
        height = height + lip
        if not cranial:
            height = height - np.float32(1.2) * qy
    if vertebra.crush < 1 and (cranial or vertebra.break_kind != "wedge"):
        height = height - np.float32(size.height * (1 - vertebra.crush)) * _break(vertebra, qy, middle)
    for dent in vertebra.dents:
        if dent.cranial == cranial:
            way = ((x - np.float32(dent.x_mm)) ** 2 + (y - np.float32(dent.y_mm)) ** 2) / dent.radius_mm**2
            height = height - np.float32(dent.depth_mm) * np.clip(1 - way * way, 0, 1)
    return np.asarray(height, np.float32)


def _break(vertebra: Vertebra, qy: Field, middle: Field) -> Field:
    """Return the share of the lost height that an endplate has lost at each place."""
    if vertebra.break_kind == "wedge":
        return np.asarray(np.clip(0.6 - qy, 0, 1.6) / 1.6, np.float32)
    if vertebra.break_kind == "biconcave":
        return np.asarray(np.float32(0.62) * np.sqrt(middle), np.float32)
    return np.asarray(0.5 + np.float32(0.12) * np.sin(5 * qy), np.float32)


def _spurs(vertebra: Vertebra, x: Field, y: Field, rim: Field) -> Field:
    """Return by how much spurs widen the body's rim: in front and at the sides, not towards the canal."""
    angle = np.arctan2(x / np.float32(vertebra.size.width), -y / np.float32(vertebra.size.depth))
    phase = float(vertebra.size.width + 7 * vertebra.size.depth)
    uneven = 0.6 + 0.25 * np.sin(3 * angle + phase) + 0.15 * np.sin(7 * angle + 2 * phase)
    front = np.clip(1.25 - np.abs(angle) / np.float32(2.0), 0, 1)
    return np.asarray(np.float32(0.26 * vertebra.spur) * rim * uneven * front, np.float32)


def bridge_part(vertebra: Vertebra) -> Part:
    """Return the bridge of bone in front of the disc below, on the right, where no aorta beats."""
    s = vertebra.size
    y, low = -0.5 * s.depth, -s.height / 2 - s.gap
    rod = Capsule(
        start_mm=(-0.2 * s.width, y - 1.0, -0.25 * s.height),
        end_mm=(-0.2 * s.width, y - 2.5, low + 1.0),
        radius_mm=(2.4, 3.6),
        stretch=(2.4, 1, 1),
    )
    return Part(shape=rod, blend_mm=3)


def arch_parts(vertebra: Vertebra) -> tuple[Part, ...]:
    """Return everything behind the body, in the order in which it is joined."""
    if vertebra.name == "C1":
        return _atlas(vertebra.size)
    build = {"C": _cervical, "T": _thoracic, "L": _lumbar}[vertebra.region]
    parts = build(vertebra)
    return (*parts, *_dens(vertebra.size)) if vertebra.name == "C2" else parts


def canal_centre(vertebra: Vertebra) -> Point:
    """Return the centre of the spinal canal at a vertebra, in its frame."""
    if vertebra.name == "C1":
        return (0.0, 14.0 * vertebra.size.depth / 10, 0.0)
    hollow = {"C": 0.99, "T": 0.90, "L": 0.92}[vertebra.region]
    return (0.0, vertebra.size.depth / 2 * hollow + vertebra.size.canal_depth / 2 + 0.3, 0.0)


def _both(
    start: Point, end: Point, radius: tuple[Number, Number], stretch: Point, blend: Number, slant: float = 0.0
) -> list[Part]:
    """Return a capsule on the left and its mirror image on the right."""
    return [
        Part(
            shape=Capsule(
                start_mm=(side * start[0], start[1], start[2]),
                end_mm=(side * end[0], end[1], end[2]),
                radius_mm=radius,
                stretch=stretch,
                slant=slant,
            ),
            blend_mm=blend,
        )
        for side in (1, -1)
    ]


def _lumbar(vertebra: Vertebra) -> tuple[Part, ...]:
    s = vertebra.size
    unit = s.height / 27
    back = canal_centre(vertebra)[1]
    half_canal = s.canal_width / 2
    pillar = half_canal + 4.5 * unit
    rear = back + s.canal_depth / 2
    inner = half_canal + 1.0
    parts = [
        # Pedicles: upper half of the body, taller than wide.
        *_both(
            (0.36 * s.width, 0.30 * s.depth, 5 * unit),
            (pillar, back - 1, 4 * unit),
            (4.4 * unit, 4.2 * unit),
            (1, 1, 1.65),
            3,
        ),
        # Superior articular processes reach up and out, and embrace the vertebra above.
        *_both(
            (pillar + 1, back + 1, 3 * unit),
            (pillar + 3.5, rear - 0.5, 17 * unit),
            (5.4 * unit, 5.0 * unit),
            (0.85, 1.25, 1),
            3,
        ),
        # Isthmus, from the pedicle down and back to the inferior process.
        *_both(
            (pillar, back + 2, 2 * unit),
            (inner + 0.5, rear + 4.5, -10 * unit),
            (4.6 * unit, 4.6 * unit),
            (1, 1, 1),
            3,
        ),
        *_both(
            (inner + 0.5, rear + 4.5, -9 * unit),
            (inner, rear + 4.0, -24 * unit),
            (5.2 * unit, 4.8 * unit),
            (1, 1.15, 1),
            2.5,
        ),
        # Laminae: plates that slope backwards on their way down.
        *_both(
            (half_canal, rear + 1.0, -6 * unit),
            (0, rear + 5.5, -8 * unit),
            (3.4 * unit, 3.7 * unit),
            (1, 1, 3.0),
            3,
            0.25,
        ),
        *_transverse(vertebra, (pillar + 2, back + 3, 3 * unit)),
        Part(shape=_blade(vertebra, rear + 4), blend_mm=3),
    ]
    return tuple(parts)


def _transverse(vertebra: Vertebra, root: Point) -> list[Part]:
    """Return lumbar transverse (costal) processes: flat, level, short on L1, stout on L5."""
    s = vertebra.size
    unit = s.height / 27
    stout = 1.35 if vertebra.name in ("L5", "L6") else 1.0
    tip = (s.span / 2 - 3, root[1] + 8 * unit, root[2] + 1.5 * unit)
    if vertebra.sacralised:
        wing = (0.54 * s.span, root[1] + 3 * unit, root[2] - 11 * unit)
        return _both(root, wing, (6.5 * unit, 8.0 * unit), (1, 0.9, 2.0), 4)
    return _both(root, tip, (3.6 * unit * stout, 2.7 * unit * stout), (1, 0.9, 1.75), 3.5)


def _blade(vertebra: Vertebra, root: Number) -> Plate:
    """Return a lumbar spinous process: a hatchet-shaped plate in the sagittal plane."""
    s = vertebra.size
    unit = s.height / 27
    tall = 1.0 if vertebra.name not in ("L5", "L6") else 0.75
    top = -1.5 * unit
    tip = max(s.reach, root + 12)
    corners = (
        (root - 3, top - 13 * unit * tall),
        (tip - 6, -s.drop - 6.5 * unit * tall),
        (tip, -s.drop - 2 * unit),
        (tip - 2, top - 6 * unit),
        (root - 3, top + 2 * unit),
    )
    return Plate(corners_mm=corners, half_thickness_mm=(2.9 * unit, 5.0 * unit))


def _thoracic(vertebra: Vertebra) -> tuple[Part, ...]:
    s = vertebra.size
    unit = s.height / 19
    back = canal_centre(vertebra)[1]
    half_canal = s.canal_width / 2
    rear = back + s.canal_depth / 2
    pillar = half_canal + 3.5
    number = int(vertebra.name[1:])
    # The processes point back in the upper chest, and shrink towards T12.
    sweep = 15.0 if number < 10 else 9.0
    parts = [
        *_both(
            (0.30 * s.width, 0.30 * s.depth, 4 * unit),
            (pillar, back - 1, 4 * unit),
            (3.0 * unit, 3.0 * unit),
            (1, 1, 1.75),
            2.5,
        ),
        *_both(
            (pillar, back + 3, 3 * unit), (pillar, rear + 0.5, 12 * unit), (3.8, 3.0), (1.25, 0.75, 1), 2.5
        ),
        *_both(
            (pillar, rear, 3 * unit), (pillar - 1, rear + 4.5, -13 * unit), (4.0, 3.4), (1.2, 0.8, 1), 2.5
        ),
        *_both(
            (half_canal, rear + 0.5, -1), (0, rear + 4.5, -3 * unit), (2.8, 3.2), (1, 1, 3.2 * unit), 3, 0.22
        ),
        *_both(
            (pillar, rear + 1, 3 * unit), (s.span / 2 - 4, rear + sweep, 4 * unit), (4.2, 4.0), (1, 1, 1.2), 3
        ),
        Part(shape=_slanted_blade(vertebra, rear + 3), blend_mm=3),
    ]
    return tuple(parts)


def _slanted_blade(vertebra: Vertebra, root: Number) -> Plate:
    """Return a thoracic spinous process: long, slanting down over the next one, most so in mid-chest."""
    s = vertebra.size
    unit = s.height / 19
    tip = max(s.reach, root + 16)
    number = int(vertebra.name[1:])
    thick = 1.0 if number < 10 else 1.25
    corners = (
        (root - 3, -11 * unit),
        (tip - 4, -s.drop - 5.5 * thick),
        (tip, -s.drop - 1.5),
        (tip - 2, -s.drop + 4.5 * thick),
        (root - 3, 3 * unit),
    )
    return Plate(corners_mm=corners, half_thickness_mm=(2.4 * thick, 3.7 * thick))


def _cervical(vertebra: Vertebra) -> tuple[Part, ...]:
    s = vertebra.size
    back = canal_centre(vertebra)[1]
    half_canal = s.canal_width / 2
    rear = back + s.canal_depth / 2
    pillar = half_canal + 4.2
    low = -3.0 if vertebra.name == "C2" else 0.0
    parts = [
        *_both(
            (0.36 * s.width, 0.25 * s.depth, 1 + low),
            (pillar - 1, back - 2, 1 + low),
            (2.9, 2.9),
            (1, 1, 1.2),
            2,
        ),
        # Articular pillars: stacked oblique blocks, their facets at about 45 degrees.
        *_both((pillar, back - 3, 6 + low), (pillar, back + 3.5, -7 + low), (5.0, 5.0), (1.05, 0.85, 1), 2),
        *_both(
            (half_canal + 1, back + 2, -1 + low), (0, rear + 1.8, -3 + low), (2.2, 2.5), (1, 1, 2.6), 2, 0.25
        ),
        # Transverse processes, short and forward; the vertebral artery's canal is cut out below.
        *_both(
            (pillar - 0.5, back - 4, 1 + low), (s.span / 2 - 3.5, 2.5, -1 + low), (3.2, 3.2), (1, 1, 1.2), 2.5
        ),
        *_both((0.40 * s.width, -2, 0 + low), (s.span / 2 - 4, 0, -1 + low), (2.4, 2.6), (1, 1, 1.1), 2.5),
        Part(shape=_neck_blade(vertebra, rear + 1), blend_mm=2.5),
    ]
    if vertebra.name != "C7":
        parts += [_hole((side * (s.width / 2 + 3.4), 3.4, 0.0), 2.9) for side in (1, -1)]
    return tuple(parts)


def _hole(centre: Point, radius: Number) -> Part:
    """Return an upright hole (foramen transversarium)."""
    start, end = (centre[0], centre[1], centre[2] - 14), (centre[0], centre[1], centre[2] + 14)
    return Part(
        shape=Capsule(start_mm=start, end_mm=end, radius_mm=(radius, radius)), blend_mm=0.8, carve=True
    )


def _neck_blade(vertebra: Vertebra, root: Number) -> Plate:
    """Return a cervical spinous process: short on C3 to C5, long on C7, stout on C2."""
    s = vertebra.size
    tall = {"C2": 1.7, "C7": 1.25}.get(vertebra.name, 1.0)
    tip = max(s.reach, root + 8)
    corners = (
        (root - 3, -5.5 * tall - 2),
        (tip - 2.5, -s.drop - 3.2 * tall),
        (tip, -s.drop - 0.5),
        (tip - 2, -s.drop + 3.2 * tall),
        (root - 3, 1.5),
    )
    return Plate(corners_mm=corners, half_thickness_mm=(2.2, 4.2 if vertebra.name != "C7" else 3.6))


def _dens(s: VertebraSize) -> tuple[Part, ...]:
    """Return the dens and the shoulders of the axis (C2)."""
    top = s.height / 2
    dens = Capsule(start_mm=(0, 0.5, 2), end_mm=(0, -1.0, top + 10), radius_mm=(5.6, 4.6))
    return (
        Part(shape=dens, blend_mm=4),
        *_both((9, 2, top - 8), (14.5, 2.5, top - 3.5), (5.5, 5.5), (1.1, 1.15, 0.8), 3),
    )


def _atlas(s: VertebraSize) -> tuple[Part, ...]:
    """Return the atlas (C1): a ring of two arches between lateral masses; the frame's origin is the dens."""
    half = s.canal_width / 2
    mass = half + 4.0
    rear = 14.0 * s.depth / 10 + s.canal_depth / 2 + 5.5
    front = -9.0
    parts = [
        *_both((mass - 1, 1, -2), (mass + 1, 5, 2), (6.8, 6.8), (0.95, 1.15, 1.05), 3),
        *_both((0, front, 0), (mass - 1, -3, 0), (3.0, 3.4), (1, 1, 1.5), 2),
        *_both((mass, 9, 1), (half + 1, rear - 9, 1), (3.0, 2.6), (1, 1, 1.5), 3),
        *_both((half + 1, rear - 9, 1), (0, rear, 1), (2.6, 3.2), (1, 1, 1.6), 3),
        *_both((mass + 4, 3, -1), (s.span / 2 - 4, 6, -2), (4.0, 3.4), (1, 1, 1.1), 3),
        _hole((mass + 8.5, 5, 0), 2.9),
        _hole((-mass - 8.5, 5, 0), 2.9),
        Part(shape=Ellipsoid(centre_mm=(0, rear + 1, 1), radii_mm=(4, 4, 4)), blend_mm=3),
    ]
    return tuple(parts)
