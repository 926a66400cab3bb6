"""The chest within the ribs: lungs with vessels, airways, heart with its chambers, great vessels.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.rib_cage import Cage, front_of_chest
from autospine.phantom.shapes import FAR_MM, Ellipsoid, Field, Part, Raster, render, smooth_max, smooth_min
from autospine.phantom.soft_tissue import Build, Space, Stage


def paint_chest_wall(stage: Stage, inner: Field) -> None:
    """Paint the muscles over the ribs, up to the neck."""
    low = np.asarray(np.float32(stage.space.levels["T12"] - 25) - stage.space.z, np.float32)
    stage.tube("muscle", smooth_max(inner, low, 30.0), strength=0.75)


def paint_chest(stage: Stage, cage: Cage) -> None:
    """Paint all that lies within the ribs down to the diaphragm's domes, and the muscles between them."""
    space = stage.space
    z = space.levels
    ribs = np.abs(cage.distance) - np.float32(5.5)
    ends = np.maximum(np.float32(z["L2"]) - space.z, space.z - np.float32(z["T1"] + 4))
    stage.tube("muscle", smooth_max(ribs, np.asarray(ends, np.float32), 4.0))
    chest = _within(stage, cage)
    stage.tube("fat", smooth_max(chest, -(chest + np.float32(2)), 1.0))
    bed = smooth_min(space.ellipse((0, -2), (27, 26)), space.ellipse((0, 34), (40, 26)), 8.0)
    wide = space.along({"T1": 30, "T3": 34, "T6": 42, "T9": 52})
    middle = smooth_min(bed, space.ellipse((6, -62), (wide, 46)), 14.0)
    stage.tube("fat", smooth_max(chest, middle, 2.0))
    lungs = smooth_max(chest, stage.ragged - middle, 6.0)
    stage.tube("lung", lungs)
    _lung_vessels(stage, lungs)
    _heart(stage, chest)
    _great_vessels(stage)
    _airways(stage)
    behind = space.along({"C6": -15, "T1": -17, "T4": -24, "T8": -31})
    oesophagus = smooth_max(space.ellipse((4, behind), (7, 5)), np.float32(z["T10"]) - space.z, 1.0)
    stage.tube("wall", smooth_max(oesophagus, np.asarray(space.z - np.float32(z["C6"]), np.float32), 2.0))


def breasts(raster: Raster, space: Space, spine: Spine, build: Build) -> Field | None:
    """Return the distance to the skin of both breasts, or None where there are none in view."""
    if build.breast_mm == 0:
        return None
    result, k = None, spine.scale
    height = space.levels["T6"] - 16
    v = front_of_chest(space, spine, build, height) - 8 - 0.4 * build.fat_mm
    for side in (1, -1):
        deep = 0.9 * build.breast_mm + 22
        egg = Ellipsoid(centre_mm=(0, 0, 0), radii_mm=(62 * k, deep, 66 * k))
        place = space.world((side * 74 * k, v + 22 * k, height))
        drawn = render(raster, place, (Part(shape=egg),), margin_mm=14.0)
        if drawn is not None:
            if result is None:
                result = np.full(raster.shape, FAR_MM, dtype=np.float32)
            result[drawn[0]] = np.minimum(result[drawn[0]], drawn[1])
    return result


def diaphragm(space: Space) -> Field:
    """Return how far below the diaphragm's two domes each voxel lies, mm; negative above them."""
    fall = np.float32(0.55) * np.maximum(space.v + 20, 0) + np.float32(0.0012) * space.u * space.u
    dome = np.float32(space.levels["T9"]) + 16 * np.cos((np.abs(space.u) - 60) / np.float32(34)) - fall
    return np.asarray(dome - space.z, np.float32)


def _within(stage: Stage, cage: Cage) -> Field:
    """Return the distance to the space of lungs and heart: under the ribs, above the diaphragm."""
    space, z = stage.space, stage.space.levels
    chest = smooth_max(cage.distance + np.float32(5.5), diaphragm(space), 4.0)
    # The lungs' tops are rounded, one on each side of the spine.
    top = space.z - np.float32(z["T1"] + 2) + np.float32(0.012) * (np.abs(space.u) - np.float32(40)) ** 2
    return smooth_max(chest, np.asarray(top, np.float32), 14.0)


def _lung_vessels(stage: Stage, lungs: Field) -> None:
    """Paint the vessels of the lungs: thick ones from the hilum, and many small ones."""
    space, picture = stage.space, stage.picture
    vessels = 2.1 - picture.grain - 0.6 * picture.cloud
    share = np.clip(-lungs / 3, 0, 1) * np.clip(0.5 - vessels, 0, 0.9)
    picture.mix("blood", np.asarray(share, np.float32), picture.raster.everywhere())
    z = space.levels
    rng = np.random.default_rng(7)
    for side in (1, -1):
        hilum = (side * 40.0, -36.0, z["T6"] + 6)
        for _ in range(9):
            way = rng.normal(0, 1, 3)
            way /= np.linalg.norm(way)
            reach = float(rng.uniform(35, 70))
            end = (
                hilum[0] + side * abs(float(way[0])) * 0.8 * reach,
                hilum[1] + float(way[1]) * reach,
                hilum[2] + float(way[2]) * 1.2 * reach,
            )
            stage.rod([("blood", 0)], ((*hilum, 5.0), (*end, 1.2)), within=lungs)


def _heart(stage: Stage, chest: Field) -> None:
    """Paint the heart: walls of muscle around four chambers, in fat."""
    z = stage.space.levels
    base = z["T8"]
    stage.organ([("fat", 0)], (18, -76, base), (54, 44, 52), chest)
    for centre, radii, wall in (
        ((46, -84, base - 14), (30, 30, 36), 10.0),
        ((2, -98, base - 10), (38, 24, 34), 4.0),
        ((14, -48, base + 16), (32, 18, 24), 2.5),
        ((-32, -76, base + 2), (24, 28, 30), 2.5),
    ):
        stage.organ([("muscle", 0), ("blood", wall)], centre, radii, chest)


def _great_vessels(stage: Stage) -> None:
    """Paint arch of the aorta with its branches, caval vein and pulmonary arteries."""
    z = stage.space.levels
    high = z["T4"] + 4
    arch = (
        (4, -72, z["T8"] + 18, 14),
        (-12, -74, z["T6"], 15),
        (-6, -64, high - 6, 14),
        (6, -46, high + 2, 13),
        (18, -24, high - 4, 12),
        (22, -14, z["T5"] - 4, 11.5),
    )
    stage.rod([("wall", 0), ("blood", 1.6)], arch)
    for line in (
        ((-6, -62, high, 7), (-18, -48, z["T2"], 6.5), (-28, -26, z["C7"], 4.5)),
        ((4, -52, high + 4, 4.5), (18, -40, z["T2"], 4), (26, -24, z["C7"], 4)),
        (
            (14, -36, high + 4, 5),
            (28, -32, z["T2"], 5),
            (66, -34, z["T1"] + 4, 4.5),
            (132, -16, z["T2"], 4.5),
        ),
        (
            (-18, -48, z["T2"], 5),
            (-40, -40, z["T1"], 5),
            (-68, -34, z["T1"] + 4, 4.5),
            (-132, -16, z["T2"], 4.5),
        ),
        ((-28, -56, z["T2"], 8), (-29, -56, z["T7"], 10)),
        ((-28, -58, z["T2"] - 4, 7), (10, -70, z["T2"] - 2, 6), (32, -46, z["T1"], 6)),
        (
            (18, -80, z["T7"], 13),
            (14, -66, z["T5"] - 4, 13),
            (38, -40, z["T5"] - 8, 9),
            (52, -32, z["T6"], 7),
        ),
        ((12, -62, z["T5"] - 8, 11), (-20, -52, z["T6"] + 8, 10), (-46, -40, z["T6"], 7)),
    ):
        stage.rod([("blood", 0)], line)


def _airways(stage: Stage) -> None:
    """Paint the windpipe from the neck to its fork, and the main bronchi."""
    z = stage.space.levels
    fork = z["T5"] + 6
    trunk = ((0, -33, z["C7"] + 4, 9.5), (0, -36, z["T2"], 10), (0, -38, z["T3"], 9.5), (-1, -38, fork, 9.5))
    bronchi = [((-1, -38, fork, 9), (side * 36, -32, fork - drop, 6.5)) for side, drop in ((1, 30), (-1, 22))]
    for tissue, depth in (("wall", 0.0), ("gas", 1.6)):
        for line in (trunk, *bronchi):
            stage.rod([(tissue, depth)], line)
