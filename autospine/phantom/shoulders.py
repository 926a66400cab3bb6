"""The shoulder girdle and the arms: clavicles, scapulae, arm bones and their flesh; none of it labelled.

Positions are relative to the second thoracic vertebra: u to the left of the spine, v behind the bodies'
centres, height above its centre, mm. Clavicle and scapula are 150 mm long, humeral heads 46 mm across.
"""

from itertools import pairwise

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.loft import Loft
from autospine.phantom.shapes import Capsule, Field, Frame, Number, Part, Point, Raster, render, smooth_min
from autospine.phantom.skeleton import Skeleton, paint_plain_bone
from autospine.phantom.soft_tissue import Build, Space, Stage

_Line = tuple[tuple[Number, Number, Number, Number], ...]
"""Points of a chain of rods, each with its radius, mm."""

# Flesh of the arm, from the shoulder to the hand, and its bones, by how the arm is held.
_FLESH: dict[str, _Line] = {
    "down": (
        (160, 4, -8, 46),
        (180, 6, -70, 46),
        (198, 12, -300, 36),
        (204, -14, -540, 25),
        (200, -34, -640, 22),
    ),
    "raised": (
        (152, 2, -4, 46),
        (178, -6, 60, 44),
        (206, -14, 250, 36),
        (120, -60, 430, 26),
        (40, -70, 500, 24),
    ),
}
_SHAFTS: dict[str, tuple[_Line, ...]] = {
    "down": (
        ((176, 6, -14, 12), (178, 8, -50, 11), (194, 12, -270, 10), (196, 12, -300, 15)),
        ((188, 14, -312, 10), (194, 4, -400, 6.5), (194, -14, -540, 5.5)),
        ((204, 10, -316, 8), (210, -4, -420, 6.5), (212, -20, -545, 8)),
    ),
    "raised": (
        ((158, 0, 14, 12), (168, -4, 50, 11), (202, -14, 225, 10), (206, -14, 250, 15)),
        ((200, -16, 262, 9), (160, -44, 350, 6.5), (118, -60, 430, 6)),
        ((192, -20, 266, 9), (150, -36, 352, 6.5), (112, -52, 436, 7)),
    ),
}
_HEADS: dict[str, Point] = {"down": (163, 4, -12), "raised": (154, 2, -2)}

_BLADE_HEIGHTS = (-128, -92, -52, -16, 10)
_BLADE = (
    ((90, 66, 3), (95, 65, 3.5), (101, 60, 3.5)),
    ((80, 68, 2.6), (98, 60, 2.0), (114, 46, 4.6)),
    ((73, 64, 2.6), (102, 52, 1.8), (129, 30, 5.2)),
    ((71, 56, 2.4), (106, 39, 2.0), (138, 14, 8.0)),
    ((82, 42, 2.4), (96, 32, 2.2), (112, 22, 3.2)),
)
_CLAVICLE: _Line = (
    (22, -52, -4, 9),
    (52, -58, 4, 6),
    (88, -50, 12, 5.5),
    (122, -24, 16, 5.5),
    (150, -4, 14, 6.5),
)
_CREST: _Line = ((74, 66, -22, 3), (112, 56, -4, 4), (142, 42, 10, 5), (160, 22, 16, 6), (162, 2, 17, 6))
_BEAK: _Line = ((134, 0, -4, 7), (130, -16, -1, 5.5), (142, -26, -8, 5))


def _size(spine: Spine, build: Build) -> float:
    """Return the size of the shoulders relative to the mean."""
    return spine.scale * (0.85 + 0.15 * build.girth)


def _frame(space: Space) -> Frame:
    """Return the upright frame at the second thoracic vertebra."""
    return space.world((0.0, 0.0, space.levels["T2"]))


def _rods(k: float, side: int, line: _Line, blend: Number = 3.0, swell: float = 1.0) -> tuple[Part, ...]:
    """Return a chain of rods, mirrored for the right side."""
    return tuple(
        Part(
            shape=Capsule(
                start_mm=(side * a[0] * k, a[1] * k, a[2] * k),
                end_mm=(side * b[0] * k, b[1] * k, b[2] * k),
                radius_mm=(a[3] * k * swell, b[3] * k * swell),
            ),
            blend_mm=blend,
        )
        for a, b in pairwise(line)
    )


def arms(raster: Raster, space: Space, spine: Spine, build: Build) -> Field | None:
    """Return the distance to the skin of both arms, or None where they are out of view."""
    k, result = _size(spine, build), None
    for side in (1, -1):
        swell = 0.5 + 0.5 * build.girth
        drawn = render(raster, _frame(space), _rods(k, side, _FLESH[build.arms], 8.0, swell), margin_mm=20.0)
        if drawn is not None:
            if result is None:
                result = np.full(raster.shape, 60.0, dtype=np.float32)
            result[drawn[0]] = np.minimum(result[drawn[0]], drawn[1])
    return result


def paint_arms(stage: Stage, flesh: Field, build: Build) -> None:
    """Paint the muscles of the arms, with fat between biceps and triceps."""
    inner = (
        np.asarray(flesh + np.float32(3 + 0.35 * build.fat_mm), np.float32) + np.float32(0.5) * stage.ragged
    )
    stage.tube("muscle", inner)
    share = np.asarray(np.clip(-inner / 4, 0, 1), np.float32)
    stage.picture.marble(share, stage.picture.raster.everywhere())


def with_arms(trunk: Field, flesh: Field | None) -> Field:
    """Return the distance to the skin of trunk and arms."""
    return trunk if flesh is None else smooth_min(trunk, flesh, 20.0)


def paint_shoulders(skeleton: Skeleton, space: Space, spine: Spine, build: Build) -> None:
    """Paint clavicles, scapulae and the bones of the arms."""
    frame, k = _frame(space), _size(spine, build)
    for side in (1, -1):
        blade = Loft(heights_mm=_BLADE_HEIGHTS, sections=_BLADE, side=side, gain=k, rim_mm=3.0)
        scapula = (Part(shape=blade, blend_mm=0), *_rods(k, side, _CREST), *_rods(k, side, _BEAK))
        x, y, z = (value * k for value in _HEADS[build.arms])
        ball = Capsule(start_mm=(side * x, y, z), end_mm=(side * x, y, z), radius_mm=(22.5 * k, 22.5 * k))
        upper, *lower = _SHAFTS[build.arms]
        humerus = (Part(shape=ball, blend_mm=0), *_rods(k, side, upper, 5.0))
        paint_plain_bone(skeleton, frame, _rods(k, side, _CLAVICLE), gap_mm=2.0, region="T", shell_mm=1.8)
        paint_plain_bone(skeleton, frame, humerus, gap_mm=2.0, region="S", shell_mm=2.6)
        paint_plain_bone(skeleton, frame, scapula, gap_mm=2.4, region="T", shell_mm=1.2)
        for line in lower:
            paint_plain_bone(skeleton, frame, _rods(k, side, line), gap_mm=1.5, region="S", shell_mm=2.6)
