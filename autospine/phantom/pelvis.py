"""The pelvis and what hangs on it: hip bones, the joint of the pubis, femora, coccyx; none of it labelled.

Positions are in a frame at the centre of the sacral endplate, x left, y posterior, z superior, in mm. Wings,
joints and rami follow sections measured on five hip bones of public masks (CC BY 4.0). Femora follow usual
measures: head 48 mm across, angle of neck and shaft 127 degrees, cortex of the shaft 5 to 7 mm.
"""

from itertools import pairwise

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.loft import Loft
from autospine.phantom.sacrum import SacralSegment
from autospine.phantom.shapes import Capsule, Ellipsoid, Field, Frame, Number, Part, Point, rotation
from autospine.phantom.skeleton import Skeleton, Thickness, paint_between, paint_plain_bone

HIP_JOINT: Point = (88.0, -24.0, -108.0)
"""Centre of the left hip joint in the pelvis' frame at scale 1, mm."""

_HEAD_RADIUS = 24.0
_CARTILAGE_MM = 3.0

_WING_HEIGHTS = (-112, -98, -86, -74, -60, -46, -32, -18, -4, 10, 22, 27)
_WING = (
    ((70, 0, 12), (64, -13, 11), (59, -28, 7), (61, -42, 10), (64, -52, 11)),
    ((70, 0, 10), (76, -13, 18), (75, -27, 20), (80, -42, 16), (84, -54, 9)),
    ((70, 0, 9), (76, -13, 17), (83, -28, 16), (92, -43, 10), (98, -58, 6)),
    ((66, 8, 9), (75, -9, 12), (88, -22, 10.5), (99, -41, 8), (104, -60, 5)),
    ((56, 28, 7), (67, 4, 11.5), (84, -17, 8), (104, -40, 6), (110, -66, 5)),
    ((52, 37, 9), (64, 10, 11), (85, -9, 5), (108, -35, 4.7), (117, -66, 6)),
    ((50, 41, 10), (62, 14, 9), (84, -3, 3), (111, -27, 4), (124, -58, 7.5)),
    ((52, 40, 10.5), (63, 16, 8), (88, 0, 2.6), (113, -20, 4), (129, -46, 8.5)),
    ((58, 34, 9.5), (67, 15, 7), (91, 2, 3), (113, -14, 4), (129, -31, 8)),
    ((66, 26, 8), (77, 12, 6), (94, 3, 4), (111, -9, 4.5), (124, -20, 6)),
    ((75, 18, 6), (85, 11, 6), (94, 3, 5), (103, -5, 5), (113, -13, 5)),
    ((82, 12, 4), (87, 8, 5), (93, 3, 5), (99, -2, 5), (104, -7, 4)),
)


def pelvis_frame(spine: Spine) -> Frame:
    """Return the frame of the hip bones: at the sacral endplate, tilted part of the way with the sacrum."""
    up = spine.sacrum.axes[:, 2]
    slope = float(np.rad2deg(np.arctan2(-up[1], up[2])))
    return Frame(origin_mm=spine.sacrum.origin_mm, axes=rotation(pitch=0.6 * (slope - 38.0)))


def paint_pelvis(skeleton: Skeleton, spine: Spine, chain: tuple[SacralSegment, ...]) -> None:
    """Paint coccyx, hip bones and femora, each with a joint's gap to what it meets."""
    frame, k = pelvis_frame(spine), spine.scale
    for segment, parts in _coccyx(chain):
        paint_plain_bone(skeleton, segment, parts, gap_mm=0.8, region="S", shell_mm=0.8)
    for side in (1, -1):
        paint_plain_bone(skeleton, frame, _hip(k, side), gap_mm=2.4, region="S", shell_mm=1.5)
    _symphysis(skeleton, frame, k)
    for side in (1, -1):
        shell = _femoral_shell(k)
        paint_plain_bone(skeleton, frame, _femur(k, side), gap_mm=2.0, region="S", shell_mm=shell)


def _rods(
    k: float, side: int, points: tuple[tuple[Point, Number], ...], stretch: Point, blend: Number
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
            blend_mm=blend,
        )
        for (a, r), (b, s) in pairwise(points)
    ]


def _hip(k: float, side: int) -> tuple[Part, ...]:
    """Return a hip bone: wing, superior ramus and body of the pubis, ischium, inferior ramus, socket."""
    wing = Loft(heights_mm=_WING_HEIGHTS, sections=_WING, side=side, gain=k, rim_mm=5.0)
    ischium = (((71, -4, -106), 15), ((67, 4, -132), 11), ((64, 9, -152), 12.5), ((60, 2, -164), 9))
    superior = (((70, -46, -106), 13), ((54, -56, -120), 9.5), ((34, -67, -131), 7.5), ((11, -77, -138), 7.5))
    body = (((9, -76, -137), 7.0), ((9.5, -67, -156), 7.0))
    inferior = (((13, -64, -158), 5.5), ((36, -34, -168), 4.8), ((60, -2, -166), 7.5))
    x, y, z = (value * k for value in HIP_JOINT)
    socket = (_HEAD_RADIUS + _CARTILAGE_MM) * k
    # The head leaves the socket sideways, down and forwards; the socket opens to that side.
    outside = (side * (x + 13 * k), y - 5 * k, z - 12 * k)
    return (
        Part(shape=wing, blend_mm=0),
        *_rods(k, side, ischium, (1, 1, 1), 5),
        *_rods(k, side, superior, (1, 1, 1.1), 5),
        *_rods(k, side, body, (0.8, 1, 1.2), 3),
        *_rods(k, side, inferior, (1, 1, 1.4), 4),
        *_rods(k, side, (((66, 12, -96), 7), ((52, 22, -112), 3)), (1, 1, 1), 4),
        Part(
            shape=Capsule(start_mm=(side * x, y, z), end_mm=outside, radius_mm=(socket, socket)),
            blend_mm=1.0,
            carve=True,
        ),
    )


def _symphysis(skeleton: Skeleton, frame: Frame, k: float) -> None:
    """Paint the fibrous cartilage between the pubic bones."""
    plate = Ellipsoid(centre_mm=(0, -72 * k, -147 * k), radii_mm=(4.0 * k, 9 * k, 17 * k))
    paint_between(skeleton, frame, plate, "annulus")


def _femur(k: float, side: int) -> tuple[Part, ...]:
    """Return the upper two thirds of a femur: head, neck, both trochanters, shaft."""
    head = tuple(value * k for value in HIP_JOINT)
    radius = _HEAD_RADIUS * k
    x, y, z = HIP_JOINT
    neck = (((x + 4, y + 1, z - 3), 17), ((x + 26, y + 4, z - 19), 14.5), ((x + 44, y + 10, z - 32), 17))
    greater = (((x + 50, y + 16, z - 6), 9), ((x + 51, y + 13, z - 26), 14.5), ((x + 46, y + 9, z - 50), 16))
    lesser = (((x + 34, y + 16, z - 55), 9), ((x + 24, y + 22, z - 52), 6))
    shaft = (((x + 42, y + 8, z - 44), 17), ((x + 40, y + 4, z - 85), 15), ((x + 24, y - 4, z - 300), 14))
    return (
        Part(
            shape=Capsule(
                start_mm=(side * head[0], head[1], head[2]),
                end_mm=(side * head[0], head[1], head[2]),
                radius_mm=(radius, radius),
            ),
            blend_mm=0,
        ),
        *_rods(k, side, neck, (1, 0.85, 1), 4),
        *_rods(k, side, greater, (1, 1.2, 1), 5),
        *_rods(k, side, lesser, (1, 1, 1), 5),
        *_rods(k, side, shaft, (1, 1, 1), 5),
    )


def _femoral_shell(k: float) -> Thickness:
    """Return the thickness of the cortex by height: thin over head and neck, stout along the shaft."""
    top, bottom = (HIP_JOINT[2] - 40) * k, (HIP_JOINT[2] - 110) * k

    def thickness(_x: Field, _y: Field, z: Field) -> Field:
        share = np.clip((np.float32(top) - z) / np.float32(top - bottom), 0, 1)
        return np.asarray(1.5 + np.float32(5.0 * k) * share, np.float32)

    return thickness


def _coccyx(chain: tuple[SacralSegment, ...]) -> list[tuple[Frame, tuple[Part, ...]]]:
    """Return the four pieces below the sacrum, bent forwards, each smaller than the one above."""
    last = chain[-1]
    k = last.height / 15.0
    frame = last.frame.moved((0.0, 0.0, -last.height / 2 - 2.0 * k)).pitched(-12)
    result: list[tuple[Frame, tuple[Part, ...]]] = []
    for width, depth, height in ((12.0, 6.0, 9.0), (8.0, 5.0, 8.0), (6.0, 4.5, 7.0), (4.5, 4.0, 6.0)):
        piece = Ellipsoid(
            centre_mm=(0.0, 0.0, -height / 2 * k), radii_mm=(width * k, depth * k, 0.62 * height * k)
        )
        result.append((frame, (Part(shape=piece, blend_mm=0),)))
        frame = frame.moved((0.0, 0.0, -(height + 1.0) * k)).pitched(-14)
    return result
