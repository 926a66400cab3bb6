"""Soft tissue around and within the pelvis: seat and thighs, the pelvic cavity and its organs.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

import numpy as np

from autospine.phantom.shapes import Field, smooth_max, smooth_min
from autospine.phantom.soft_tissue import Build, Space, Stage


def with_thighs(space: Space, trunk: Field, girth: float) -> Field:
    """Return the distance to the skin of trunk and thighs: the trunk ends at the crotch, two legs go on."""
    crotch = np.float32(space.levels["floor"] - 4)
    if space.z.min() > crotch + 80:
        return trunk
    legs = np.minimum(*(_thigh(space, side, girth) for side in (1, -1)))
    legs = smooth_max(legs, np.asarray(space.z - crotch - np.float32(70), np.float32), 25.0)
    return smooth_min(smooth_max(trunk, np.asarray(crotch - space.z, np.float32), 16.0), legs, 14.0)


def _thigh(space: Space, side: int, girth: float) -> Field:
    """Return the distance to the skin of one thigh."""
    u = space.along({"end": 96, "floor": 94, "thigh": 88}) * np.float32(0.4 + 0.6 * girth)
    v = space.along({"end": -12, "floor": -8, "thigh": 4})
    wide = space.along({"end": 86, "floor": 88, "thigh": 72}) * np.float32(girth)
    deep = space.along({"end": 96, "floor": 92, "thigh": 74}) * np.float32(girth)
    return space.ellipse((side * u, v), (wide, deep))


def paint_seat_and_thighs(stage: Stage, inner: Field) -> None:
    """Paint glutei and the muscles of the thighs, with fat between and within them."""
    space = stage.space
    top = np.float32(10) + np.float32(0.7) * np.clip(space.v, -60, 60)
    if space.z.min() > 60:
        return
    flesh = smooth_max(inner + np.float32(1), np.asarray(space.z - top, np.float32), 8.0)
    stage.tube("muscle", flesh)
    share = np.asarray(np.clip(-flesh / 4, 0, 1), np.float32)
    stage.picture.marble(share, stage.picture.raster.everywhere())
    for side in (1, -1):
        for u, v, a, b in _SEPTA:
            septum = np.abs(space.ellipse((side * u, v), (a, b)) + np.float32(2.5) * stage.ragged)
            sheet = smooth_max(septum - np.float32(1.2), flesh, 1.0)
            stage.tube("fat", sheet, strength=0.85)


# Compartments of seat and thigh, between which fat lies: centre and half axes in the transverse plane, mm.
_SEPTA = ((88, 78, 74, 42), (122, 26, 30, 40), (96, -52, 34, 34), (56, -34, 26, 40), (78, 30, 40, 34))


def pelvic_cavity(space: Space, belly: Field) -> Field:
    """Return the belly's cavity narrowed to the true pelvis below the brim, down to its floor."""
    if space.z.min() > 20:
        return belly
    wide = space.along({"L5": 300, "S": 150, "brim": 72, "end": 56, "floor": 40})
    front = space.along({"L5": -300, "S": -190, "brim": -128, "end": -94, "floor": -78})
    back = space.along({"L5": 60, "S": 8, "brim": 24, "end": 22, "floor": 0})
    pelvis = space.ellipse((0, (front + back) / 2), (wide, (back - front) / 2))
    floor = np.asarray(np.float32(space.levels["floor"] + 8) - space.z, np.float32)
    return smooth_max(smooth_max(belly, pelvis, 8.0), floor, 10.0)


def paint_pelvic_organs(stage: Stage, inside: Field, build: Build) -> None:
    """Paint rectum with its contents, bladder, and womb or prostate."""
    space = stage.space
    if space.z.min() > -10:
        return
    rng = np.random.default_rng([build.seed, 1])
    k, z = space.levels["end"] / -110.0, space.levels["end"]
    v = space.along({"S": -24, "brim": -2, "end": 6, "floor": -6})
    below = np.asarray(space.z - np.float32(0.4 * space.levels["brim"]), np.float32)
    width = float(rng.uniform(11, 22))
    rectum = smooth_max(space.ellipse((0, v), (width, 0.8 * width)), below, 6.0) + stage.ragged
    rectum = smooth_max(rectum, inside - 4, 4.0)
    stage.tube("wall", rectum)
    stage.tube("bowel", rectum + np.float32(3))
    if rng.random() < 0.5:
        stage.tube("gas", rectum + np.float32(0.55 * width))
    middle = (float(rng.uniform(-5, 5)), -30.0 * k, z + float(rng.uniform(-8, 8)))
    female = rng.random() < 0.5
    size = (24, 20, 28) if female else (24, 17, 17)
    place = middle if female else (0.0, -38.0 * k, z - 28 * k)
    stage.organ([("wall", 0), ("kidney", 7)], place, size, inside)
    full = float(rng.uniform(0.55, 1.25))
    stage.organ(
        [("wall", 0), ("fluid", 3)],
        (0.0, -66.0 * k, z - 18 + 26 * full),
        (40 * full, 26 * full, 32 * full),
        inside,
    )
